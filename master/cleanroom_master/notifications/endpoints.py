"""Whom the site tells of what: `notifications.toml` in the site directory, a table an endpoint."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from cleanroom_base.errors import InfrastructureError, InputError, Problem
from cleanroom_base.settings import Settings
from cleanroom_db.states import Forge, NotificationEvent
from cleanroom_master import repository_addresses
from cleanroom_recipes import names

FILE = "notifications.toml"
EVENTS = tuple(event for event in NotificationEvent if event is not NotificationEvent.STATUS)


def _web_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address that begins with https:// or http://")
    return value.rstrip("/")


def _mail_address(value: str) -> str:
    name, _, host = value.rpartition("@")
    if not name or not host or not value.isprintable() or any(c in value for c in " ,;<>"):
        raise ValueError("must be an e-mail address")
    return value


Address = Annotated[str, AfterValidator(_web_address)]
MailAddress = Annotated[str, AfterValidator(_mail_address)]
Told = Literal[
    NotificationEvent.REGRESSED,
    NotificationEvent.FIXED,
    NotificationEvent.PUBLISHED,
    NotificationEvent.ROLLED_BACK,
    NotificationEvent.WITHDRAWN,
]


class _Endpoint(BaseModel):
    """What all kinds have: of which products (patterns) and channels they are told; none: of all channels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    products: tuple[str, ...] = ("*",)
    channels: tuple[str, ...] = ()
    events: tuple[Told, ...] = EVENTS

    def wants(self, product: str, channel: str, subscribed: Iterable[str] | None) -> bool:
        """Whether it is told of a product in a channel; a product's recipe can ask for it, too."""
        wanted = any(fnmatchcase(product, pattern) for pattern in self.products) or self.name in (subscribed or ())
        return wanted and (not self.channels or channel in self.channels)


class WebhookEndpoint(_Endpoint):
    """Somebody's program, told by signed webhooks."""

    kind: Literal["webhook"]
    url: Address
    secret_file: Path


class ChatEndpoint(_Endpoint):
    """A room of a chat that takes `{"text": ...}`, as Slack, Mattermost, Rocket.Chat and others do.

    Whoever knows the address may write there, so it can stand in a file.
    """

    kind: Literal["chat"]
    url: Address | None = None
    url_file: Path | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> ChatEndpoint:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("has either url or url_file")
        return self

    def address(self) -> str:
        """Where messages go. Raises InfrastructureError where the file with it cannot be read."""
        if self.url_file is not None:
            return secret(self.url_file)
        assert self.url is not None  # one of both is there
        return self.url


class MailEndpoint(_Endpoint):
    """People, told by e-mail."""

    kind: Literal["email"]
    to: tuple[MailAddress, ...] = Field(min_length=1, max_length=100)


class ForgeEndpoint(_Endpoint):
    """A forge whose commits are given a status; of products whose repository is there."""

    kind: Literal[Forge.GITHUB, Forge.GITLAB, Forge.GITEA]
    url: Address
    api: Address | None = None
    token_file: Path
    events: tuple[()] = ()

    @property
    def interface(self) -> str:
        """The address of its interface for programs."""
        if self.api is not None:
            return self.api
        if self.kind is Forge.GITHUB and urlsplit(self.url).hostname == "github.com":
            return "https://api.github.com"
        return self.url + {Forge.GITHUB: "/api/v3", Forge.GITLAB: "/api/v4", Forge.GITEA: "/api/v1"}[self.kind]

    def repository(self, url: str) -> str | None:
        """The path of a repository that is there; None: it is elsewhere."""
        found = repository_addresses.parts(url)
        return found[1] if found is not None and found[0] == urlsplit(self.url).hostname else None


Endpoint = WebhookEndpoint | ChatEndpoint | MailEndpoint | ForgeEndpoint
_ANY: TypeAdapter[Endpoint] = TypeAdapter(Annotated[Endpoint, Field(discriminator="kind")])


def load(settings: Settings) -> dict[str, Endpoint]:
    """The endpoints of a site by name; none where it has no such file. Raises InputError with every problem."""
    file = settings.site / FILE
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(
            "the endpoints of notifications are not valid", problems=[Problem(str(file), str(error))]
        ) from error
    found: dict[str, Endpoint] = {}
    problems: list[Problem] = []
    for name, table in content.items():
        if not isinstance(table, dict):
            problems.append(Problem(f"{file}: {name}", "must be a table, [NAME]"))
            continue
        if not names.is_name(names.ENDPOINT, name):
            problems.append(
                Problem(f"{file}: {name[:100]!r}", "must be a name of lower-case letters, digits and hyphens")
            )
        try:
            # `name` is the table's own, so that it cannot be said otherwise.
            found[name] = _ANY.validate_python({**table, "name": name} if "name" not in table else table)
            if "name" in table:
                problems.append(Problem(f"{file}: {name}.name", "unknown key"))
        except ValidationError as error:
            problems += [_problem(file, name, one["loc"], one["msg"]) for one in error.errors()]
    if problems:
        raise InputError("the endpoints of notifications are not valid", problems=problems)
    return found


def _problem(file: Path, name: str, place: tuple[int | str, ...], message: str) -> Problem:
    # The first part of a place is the kind by which the form was chosen.
    inner = ".".join(str(part) for part in place[1:])
    return Problem(f"{file}: {name}{'.' if inner else ''}{inner}", message)


def secret(file: Path) -> str:
    """What stands in a file with a secret. Raises InfrastructureError."""
    try:
        found = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InfrastructureError(f"the secret in {file} cannot be read: {error}", hint=f"see {FILE}") from error
    if not found:
        raise InfrastructureError(f"there is no secret in {file}", hint=f"see {FILE}")
    return found

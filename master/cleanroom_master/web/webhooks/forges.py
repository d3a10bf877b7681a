"""How each forge signs its webhooks, and what they call things.

Sources: GitHub, "Validating webhook deliveries" and "Webhook events and payloads"; GitLab, "Webhooks" and "Webhook
events"; Gitea, "Webhooks".
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cleanroom_base.errors import InputError
from cleanroom_db.states import Forge

_HEADER_LIMIT = 200
_ADDRESS_LIMIT = 2000


class NotSigned(InputError):
    """A webhook does not carry a signature by the secret that is agreed on."""


class NotUnderstood(InputError):
    """A webhook is signed, and yet not of the form that its forge sends."""


@dataclass(frozen=True)
class _Ways:
    """The headers of a forge, in lower case, the events that tell of pushed refs, and where addresses stand."""

    event: str
    delivery: str
    refs: frozenset[str]
    tests: frozenset[str]
    repository: str
    addresses: tuple[str, ...]


_WAYS = {
    Forge.GITHUB: _Ways(
        "x-github-event",
        "x-github-delivery",
        frozenset({"push", "create", "delete"}),
        frozenset({"ping"}),
        "repository",
        ("clone_url", "ssh_url", "git_url", "html_url"),
    ),
    Forge.GITLAB: _Ways(
        "x-gitlab-event",
        "x-gitlab-event-uuid",
        frozenset({"Push Hook", "Tag Push Hook"}),
        frozenset(),
        "project",
        ("git_http_url", "git_ssh_url", "web_url"),
    ),
    Forge.GITEA: _Ways(
        "x-gitea-event",
        "x-gitea-delivery",
        frozenset({"push", "create", "delete"}),
        frozenset(),
        "repository",
        ("clone_url", "ssh_url", "html_url"),
    ),
}


@dataclass(frozen=True)
class Webhook:
    """What a webhook says. `sent_at` None: it does not say when; `addresses` are of the repository it is about.

    `digest` tells what was signed: the same digest is the same webhook, whatever it is called.
    """

    forge: Forge
    event: str
    delivery: str
    digest: str
    addresses: frozenset[str]
    sent_at: datetime | None
    about_refs: bool


def verify(forge: Forge, headers: Mapping[str, str], body: bytes, secret: bytes) -> None:
    """Raise NotSigned unless the webhook was made by somebody who has the secret. Names of headers are lower case."""
    signed = hmac.new(secret, body, hashlib.sha256).hexdigest()
    match forge:
        case Forge.GITHUB:
            right = _equal(headers.get("x-hub-signature-256", ""), f"sha256={signed}")
        case Forge.GITEA:
            right = _equal(headers.get("x-gitea-signature", ""), signed)
        case Forge.GITLAB:
            right = _equal(headers.get("x-gitlab-token", ""), secret)
    if not right:
        raise NotSigned(f"the webhook is not signed by {forge} with the secret that was agreed on")


def read(forge: Forge, headers: Mapping[str, str], body: bytes) -> Webhook:
    """What a webhook says whose signature was verified. Raises NotUnderstood."""
    ways = _WAYS[forge]
    event, delivery = headers.get(ways.event, ""), headers.get(ways.delivery, "")
    if not event or len(event) > _HEADER_LIMIT // 2:
        raise NotUnderstood(f"the header {ways.event} does not say what the webhook is about")
    if not delivery or len(delivery) > _HEADER_LIMIT:
        raise NotUnderstood(f"the header {ways.delivery} does not say which delivery this is")
    content = _content(body)
    repository = content.get(ways.repository)
    repository = repository if isinstance(repository, dict) else {}
    found = (repository.get(name) for name in ways.addresses)
    addresses = frozenset(one for one in found if isinstance(one, str) and 0 < len(one) <= _ADDRESS_LIMIT)
    about_refs = event in ways.refs
    if about_refs and not addresses:
        raise NotUnderstood(f"the webhook does not say of which repository it is ({ways.repository})")
    # GitLab signs nothing and says no time: what is one delivery there is told by its name alone.
    apart = f"{delivery}\n".encode() if forge is Forge.GITLAB else b""
    digest = hashlib.sha256(apart + body).hexdigest()
    return Webhook(forge, event, delivery, digest, addresses, _sent_at(forge, repository), about_refs)


def _equal(given: str, expected: str | bytes) -> bool:
    """Compare in a time that does not tell how much of it is right."""
    right = expected if isinstance(expected, bytes) else expected.encode()
    return hmac.compare_digest(given.encode(errors="replace"), right)


def _content(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotUnderstood(
            "the webhook's body is not JSON", hint="choose the content type application/json"
        ) from error
    if not isinstance(content, dict):
        raise NotUnderstood("the webhook's body is no JSON object")
    return content


def _sent_at(forge: Forge, repository: Mapping[str, Any]) -> datetime | None:
    """When the repository was last pushed to, at the time of the webhook, by what was signed."""
    value = repository.get("pushed_at" if forge is Forge.GITHUB else "updated_at")
    if forge is Forge.GITLAB or isinstance(value, bool):
        return None
    try:
        if isinstance(value, int):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            at = datetime.fromisoformat(value)
            return at.replace(tzinfo=UTC) if at.tzinfo is None else at
    except (ValueError, OverflowError, OSError):
        pass
    return None

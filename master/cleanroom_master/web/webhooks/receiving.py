"""Where forges send their webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import Settings
from cleanroom_db import cluster, webhooks
from cleanroom_db.connection import Database
from cleanroom_db.roles import Role
from cleanroom_db.states import Forge
from cleanroom_master import repository_addresses as addresses
from cleanroom_master.web.api.problems import PROBLEMS, Refused
from cleanroom_master.web.webhooks import forges
from cleanroom_master.web.webhooks.forges import NotSigned, NotUnderstood, Webhook
from cleanroom_recipes import names

# GitHub sends at most 25 MB; what tells of some refs is far smaller. So many are read at a time, each in so many
# seconds.
LIMIT = 4 << 20
_AT_A_TIME = 8
_SECONDS = 30.0
_HOUR = 3600.0
# A clock of a forge may be ahead by so much.
_AHEAD = timedelta(minutes=10)
_WAIT = 2.0

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


@dataclass(frozen=True)
class Receiver:
    """What webhooks are checked with, and where they are noted.

    `secret` is for all products; a file in `secrets` with a product's name is for that one, and wins. `window` is how
    old a webhook may be, in seconds.
    """

    database: Database
    secret: bytes | None
    secrets: Path | None
    window: float
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_A_TIME))

    @classmethod
    def open(cls, settings: Settings) -> Receiver:
        """The receiver of a site; nothing is connected yet."""
        secret, secrets = settings.optional("webhooks.secret"), settings.optional("webhooks.secrets")
        return cls(
            Database(cluster.database_url(settings, Role.HOOKS), wait=_WAIT, connections=4),
            secret.encode() if secret else None,
            Path(secrets) if secrets else None,
            settings.number("webhooks.window") * _HOUR,
        )

    def secret_of(self, product: str | None) -> bytes | None:
        """The secret that is agreed on for a product; None: there is none. Raises InfrastructureError."""
        if product is not None and self.secrets is not None and names.is_name(names.PRODUCT, product):
            file = self.secrets / product
            try:
                if own := file.read_bytes().strip():
                    return own
            except FileNotFoundError:
                pass
            except OSError as error:
                raise InfrastructureError(f"the secret {file} cannot be read: {error.strerror}") from error
        return self.secret


class Received(BaseModel):
    """What became of a webhook.

    `taken`: the repository is looked at; `repeated`: it came before, and nothing is done again; `ignored`: it tells
    of nothing that a release could come of.
    """

    state: Literal["taken", "repeated", "ignored"]
    products: list[str]


async def _receiver(request: Request) -> Receiver:
    receiver: Receiver | None = request.app.state.receiver
    if receiver is None:
        raise Refused(404, "No webhooks here", "This Cleanroom takes no webhooks.")
    return receiver


Ours = Annotated[Receiver, Depends(_receiver)]
_BODY = {
    "requestBody": {
        "required": True,
        "description": "As the forge sends it.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {status: PROBLEMS[status] for status in (400, 401, 404, 408, 413, 422, 503)}


@router.post("/{forge}", openapi_extra=_BODY, responses=_ANSWERS)
async def receive(forge: Forge, request: Request, receiver: Ours) -> Received:
    """Take a webhook of any watched repository, signed with the secret of the site."""
    return await _take(forge, None, request, receiver)


@router.post("/{forge}/{product}", openapi_extra=_BODY, responses=_ANSWERS)
async def receive_of_product(forge: Forge, product: str, request: Request, receiver: Ours) -> Received:
    """Take a webhook of one product's repository, signed with the secret of the product, or of the site."""
    return await _take(forge, product, request, receiver)


async def _take(forge: Forge, product: str | None, request: Request, receiver: Receiver) -> Received:
    headers = {name.lower(): value for name, value in request.headers.items()}
    secret = await to_thread.run_sync(receiver.secret_of, product)
    if secret is None:
        raise Refused(
            401,
            "No secret is agreed on",
            "Webhooks are taken only with a secret.",
            hint="set webhooks.secret, or put a file with the product's name into webhooks.secrets",
        )
    body = await _body(request, receiver.room)
    try:
        forges.verify(forge, headers, body, secret)
        return await to_thread.run_sync(_noted, receiver, product, forge, headers, body)
    except NotSigned as error:
        raise Refused(401, "The signature is not valid", f"{error.message}.") from error
    except NotUnderstood as error:
        raise Refused(400, "The webhook is not understood", f"{error.message}.", hint=error.hint or "") from error


def _noted(receiver: Receiver, product: str | None, forge: Forge, headers: Mapping[str, str], body: bytes) -> Received:
    webhook = forges.read(forge, headers, body)
    if not webhook.about_refs:
        return Received(state="ignored", products=[])
    _require_new(webhook, receiver.window)
    found = _watched(receiver.database, product, webhook)
    # Remembered for longer than it may be old, so that none is forgotten before its time refuses it.
    kept = receiver.window + _AHEAD.total_seconds()
    taken = webhooks.receive(
        receiver.database, forge, webhook.delivery, webhook.digest, webhook.event, found, kept=kept
    )
    return Received(state="taken" if taken else "repeated", products=found)


def _require_new(webhook: Webhook, window: float) -> None:
    if webhook.sent_at is None:
        return
    now = datetime.now(UTC)
    if webhook.sent_at < now - timedelta(seconds=window):
        raise Refused(400, "The webhook is too old", f"It is of {webhook.sent_at:%Y-%m-%d %H:%M} UTC.")
    if webhook.sent_at > now + _AHEAD:
        raise Refused(400, "The webhook is of the future", f"It is of {webhook.sent_at:%Y-%m-%d %H:%M} UTC.")


def _watched(database: Database, product: str | None, webhook: Webhook) -> list[str]:
    """The watched products of the repository that a webhook is about."""
    others = set(webhook.addresses)
    if product is None:
        found = sorted(name for name, url in webhooks.addresses(database) if addresses.same(url, others))
    else:
        url = webhooks.address(database, product)
        # A local path says nothing of where the forge has it: then the product's own address and secret decide.
        alike = url is not None and (addresses.place(url) is None or addresses.same(url, others))
        found = [product] if alike else []
    if not found:
        raise Refused(
            404,
            "Nobody watches this repository",
            f"No product {'of this name ' if product else ''}is watched at {', '.join(sorted(others))[:500]}.",
            hint="cleanroom product add NAME GIT_URL",
        )
    return found


async def _body(request: Request, room: asyncio.Semaphore) -> bytes:
    """The body of a request; one that is too large is not read. Raises Refused."""
    too_large = Refused(413, "The webhook is too large", f"At most {LIMIT} bytes are taken.", close=True)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > LIMIT:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(_SECONDS), room:
            async for piece in request.stream():
                body += piece
                if len(body) > LIMIT:
                    raise too_large
    except TimeoutError as error:
        raise Refused(408, "The webhook came too slowly", f"It has {_SECONDS:.0f} s.", close=True) from error
    return bytes(body)

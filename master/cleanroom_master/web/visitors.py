"""Who asks? Somebody who is signed in, a program with a token, or nobody in particular.

Every handler is preceded by `identify`. Nobody costs no look into the database.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass

from anyio import to_thread
from fastapi import Request
from fastapi.responses import Response

from cleanroom_base.errors import InputError
from cleanroom_base.settings import Settings
from cleanroom_db import accounts, audit, cluster, readable, sessions, tokens
from cleanroom_db.accounts import Holder
from cleanroom_db.connection import Database
from cleanroom_db.roles import Role
from cleanroom_db.sessions import Ages
from cleanroom_db.states import AccountRole
from cleanroom_db.tokens import TokenRefused
from cleanroom_master.permissions import ACTIONS, may
from cleanroom_master.web.openid import Provider

_DATABASE_WAIT = 2.0
_CONNECTIONS = 4
_HOUR = 3600.0
# What can be asked for without being let in, where reading is closed too.
_OPEN = ("/sign-in", "/sign-out")
_LONGEST = 200


class SignInNeeded(InputError):
    """This needs somebody who is signed in."""


@dataclass(frozen=True)
class Access:
    """How people get in: their rows, the site's settings, and the provider of OpenID Connect, if there is one.

    `part` is the record for those who may read some products, as `readable` has it.
    """

    database: Database
    part: Database
    settings: Settings
    provider: Provider | None = None

    @classmethod
    def open(cls, settings: Settings) -> Access:
        """The access to a site; nothing is connected yet."""
        url = cluster.database_url(settings, Role.ACCESS)
        database = Database(url, wait=_DATABASE_WAIT, connections=_CONNECTIONS)
        part = Database(cluster.database_url(settings, Role.READER), wait=_DATABASE_WAIT, connections=_CONNECTIONS)
        return cls(database, part, settings, Provider.of(settings))

    @property
    def ages(self) -> Ages:
        """How long sessions last."""
        return Ages(self.settings.number("web.session_idle") * _HOUR, self.settings.number("web.session_age") * _HOUR)

    @property
    def closed(self) -> bool:
        """Whether reading needs signing in too."""
        return self.settings.text("web.anonymous") == "none"

    @property
    def secure(self) -> bool:
        """Whether people come by HTTPS."""
        return self.settings.web_url.startswith("https://")

    def part_of(self, visitor: Visitor) -> Database | None:
        """The record as a visitor may read it; None: all of it."""
        if not self.closed:
            return None
        products = frozenset[str]() if visitor.holder is None else visitor.holder.readable
        return None if products is None else readable.of(self.part, products)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self.database.close()
        self.part.close()

    def cookie(self, name: str) -> str:
        """The name of a cookie: by its prefix browsers see to it that no other host has set it. Source: RFC 6265bis."""
        return f"__Host-cleanroom_{name}" if self.secure else f"cleanroom_{name}"

    def set_cookie(self, answer: Response, name: str, value: str, seconds: float | None = None) -> None:
        """Have the browser keep a secret, which scripts cannot read and other sites' forms do not send."""
        age = None if seconds is None else int(seconds)
        answer.set_cookie(self.cookie(name), value, max_age=age, httponly=True, samesite="lax", secure=self.secure)

    def drop_cookie(self, answer: Response, name: str) -> None:
        """Have the browser forget one."""
        answer.delete_cookie(self.cookie(name), httponly=True, samesite="lax", secure=self.secure)


@dataclass(frozen=True)
class Visitor:
    """Who asks. `holder` None: nobody in particular; `secret` is what its forms are bound to, None by a token."""

    holder: Holder | None
    secret: str | None
    address: str

    @property
    def name(self) -> str:
        """Who it is, in words."""
        return "anonymous" if self.holder is None else self.holder.name

    @property
    def form_token(self) -> str:
        """What a form of this visitor carries, and no other site knows; empty where there is nothing to bind it to."""
        return "" if self.secret is None else hmac.digest(self.secret.encode(), b"form", hashlib.sha256).hex()

    def may(self, word: str, product: str | None = None) -> bool:
        """Whether it may do something, by the action's word."""
        return may(self.holder, ACTIONS[word], product)


def of(request: Request) -> Visitor:
    """Who asks; nobody in particular where no handler was found."""
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    return visitor or Visitor(None, None, _address(request))


async def identify(request: Request) -> None:
    """Find out who asks. Raises TokenRefused, and SignInNeeded where nobody in particular may read."""
    access: Access | None = request.app.state.site.access
    if access is None:
        return
    authorization = request.headers.get("authorization", "")
    secret = request.cookies.get(access.cookie("session"), "")[:_LONGEST]
    if authorization:
        visitor = await to_thread.run_sync(_by_token, access, authorization, _address(request))
    elif secret:
        # A page that asks for itself again does not show that somebody is there. Source: Fetch Metadata.
        used = request.headers.get("sec-fetch-dest") != "empty"
        visitor = await to_thread.run_sync(_by_session, access, secret, _address(request), used)
    else:
        visitor = Visitor(None, None, _address(request))
    if visitor.holder is None and (visit := request.cookies.get(access.cookie("visit"), "")[:_LONGEST]):
        visitor = Visitor(None, visit, visitor.address)
    request.state.visitor = visitor
    if access.closed and not request.url.path.startswith(_OPEN):
        if visitor.holder is None:
            raise SignInNeeded("this Cleanroom is shown to those who are signed in")
        if not visitor.holder.may_somewhere(AccountRole.READER):
            raise InputError(f"{visitor.name} may not read", hint="an administrator can grant the role reader")


def _by_session(access: Access, secret: str, address: str, used: bool) -> Visitor:
    account = sessions.find(access.database, secret, access.ages, used=used)
    holder = None if account is None else accounts.by_id(access.database, account)
    return Visitor(holder, None if holder is None else secret, address)


def _by_token(access: Access, authorization: str, address: str) -> Visitor:
    """Whoever a token stands for. Wrong ones count as failed attempts to sign in, and stand in the audit log."""
    kind, _, secret = authorization.partition(" ")
    subject = "unknown token"
    try:
        if kind.lower() != "bearer":
            raise TokenRefused("what authorizes has the form: Bearer TOKEN")
        token = tokens.find(access.database, secret.strip()[:_LONGEST])
        subject = token.name
        holder = accounts.by_id(access.database, token.account)
        if holder is None:
            raise TokenRefused(f"the account of the token {token.name} was removed")
    except TokenRefused as error:
        sessions.attempt(access.database, f"token from {address}", address)
        detail = {"why": error.message, "address": address}
        audit.record(access.database, "anonymous", "token", subject, detail=detail, allowed=False)
        raise
    return Visitor(holder.limited(token.role, token.product, token.name), None, address)


def _address(request: Request) -> str:
    """Where it asks from, as far as limits on attempts are concerned: of IPv6 a whole network is one place."""
    host = request.client.host if request.client is not None else "unknown"
    try:
        place = ipaddress.ip_address(host)
    except ValueError:
        return host[:100]
    return str(ipaddress.ip_network((place, 64), strict=False)) if place.version == 6 else str(place)

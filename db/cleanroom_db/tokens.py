"""Tokens: what programs say instead of signing in.

A token belongs to an account and may do less than it: at most what its role may, for its product or for all. The row
has the SHA-256 of the secret, which is shown once.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from cleanroom_base.errors import InputError
from cleanroom_db import audit
from cleanroom_db.connection import Cursor, Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sessions import digest
from cleanroom_db.sql import load
from cleanroom_db.states import AccountRole

_SQL = load("tokens")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# By this a token is recognized where it should not be, in a public repository for example.
PREFIX = "cleanroom_"


@dataclass(frozen=True)
class Token(Entity):
    """A token, without its secret. `product` None: for all; `used_at` None: never; to the minute."""

    id: int
    account: int
    name: str
    role: AccountRole
    product: str | None
    created_at: datetime
    created_by: str
    expires_at: datetime
    used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True)
class OwnedToken(Token):
    """A token, and the name of its account."""

    account_name: str


class TokenRefused(InputError):
    """The token is not valid."""


def add(
    database: Database,
    account: int,
    account_name: str,
    name: str,
    *,
    role: AccountRole,
    product: str | None,
    expires_at: datetime,
    actor: str,
) -> tuple[Token, str]:
    """A new token of an account, and its secret. Raises InputError."""
    if _NAME.fullmatch(name) is None:
        raise InputError(
            f"{name[:100]!r} cannot be a token's name",
            hint="lower-case letters, digits, and . _ - inside; at most 64 characters",
        )
    if expires_at <= datetime.now(UTC):
        raise InputError("a token ends in the future")
    secret = PREFIX + secrets.token_urlsafe(32)
    with database.transaction() as cursor:
        row = cursor.row(
            _SQL["insert"],
            account=account,
            name=name,
            secret=digest(secret),
            role=role,
            product=product,
            created_by=plain(actor),
            expires_at=expires_at,
        )
        if row is None:
            raise InputError(
                f"{account_name} has a token {name!r} already", hint=f"cleanroom token revoke {account_name} {name}"
            )
        token = Token.from_row(row)
        detail = {"role": role, "product": product, "expires_at": expires_at.astimezone(UTC).isoformat()}
        audit.record(database, actor, "token add", f"{account_name} {name}", detail=detail)
    return token, secret


def find(database: Database, secret: str) -> Token:
    """The token of a secret, which is used by that. Raises TokenRefused for one that is unknown, expired or revoked."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["find"], secret=digest(secret))
        if row is None:
            raise TokenRefused("the token is not known")
        token = Token.from_row(row)
        if token.revoked_at is not None:
            raise TokenRefused(f"the token {token.name} was revoked")
        if row["expired"]:
            raise TokenRefused(f"the token {token.name} has expired")
        if row["stale"]:
            cursor.execute(_SQL["used"], id=token.id)
        return token


def list_all(database: Database, account: int | None = None) -> list[OwnedToken]:
    """All tokens (of an account) that were not revoked."""
    with database.transaction() as cursor:
        return [OwnedToken.from_row(row) for row in cursor.rows(_SQL["list"], account=account)]


def revoke(database: Database, account: int, account_name: str, name: str, *, actor: str) -> None:
    """Let a token do nothing any more. Raises InputError."""
    with database.transaction() as cursor:
        if not cursor.execute(_SQL["revoke"], account=account, name=plain(name)):
            raise InputError(
                f"{account_name} has no token {name[:100]!r}", hint=f"'cleanroom token list {account_name}' shows all"
            )
        audit.record(database, actor, "token revoke", f"{account_name} {name}")


def revoke_all(cursor: Cursor, account: int) -> None:
    """Let all tokens of an account do nothing any more."""
    cursor.execute(_SQL["revoke_all"], account=account)

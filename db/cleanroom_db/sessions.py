"""Sessions of people who are signed in, and the limits on trying to.

A session is a row; the browser has its secret, the row the secret's SHA-256. It ends when nobody used it for a while,
when it is old, at sign-out, with a new password, and with its account.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from cleanroom_base.errors import InputError
from cleanroom_db.connection import Cursor, Database, plain
from cleanroom_db.sql import load

_SQL = load("sessions")

# Of failed attempts to sign in within a window of so many seconds: so many for one account, from one address.
WINDOW = 900.0
OF_ACCOUNT = 10
OF_ADDRESS = 40


class TooManyAttempts(InputError):
    """Too many attempts to sign in failed."""


@dataclass(frozen=True)
class Ages:
    """How long a session may be unused, and how old it may become, in seconds."""

    idle: float
    age: float


def digest(secret: str) -> str:
    """What is kept of a secret that is random and long."""
    return hashlib.sha256(secret.encode()).hexdigest()


def begin(database: Database, account: int, address: str, ages: Ages) -> str:
    """A new session of an account; returns its secret. What has expired is forgotten."""
    secret = secrets.token_urlsafe(32)
    with database.transaction() as cursor:
        cursor.execute(_SQL["end_expired"], idle=ages.idle, age=ages.age)
        cursor.execute(_SQL["insert"], secret=digest(secret), account=account, address=plain(address))
    return secret


def find(database: Database, secret: str, ages: Ages, *, used: bool = True) -> int | None:
    """The account of a session, None where it is over; `used`: somebody is there, and it goes on."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["find"], secret=digest(secret), idle=ages.idle, age=ages.age)
        if row is None:
            return None
        # A row a minute is enough to know that it is used.
        if used and row["stale"]:
            cursor.execute(_SQL["seen"], secret=digest(secret))
        return int(row["account"])


def end(database: Database, secret: str) -> None:
    """End a session; to end it twice is no harm."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["end"], secret=digest(secret))


def end_all(cursor: Cursor, account: int) -> int:
    """End all sessions of an account; returns how many there were."""
    return cursor.execute(_SQL["end_all"], account=account)


def count(database: Database, account: int) -> int:
    """How many sessions of an account are kept."""
    with database.transaction() as cursor:
        return int(cursor.value(_SQL["count"], account=account))


def attempt(database: Database, account: str, address: str) -> None:
    """Note an attempt to sign in, as failed until `succeeded` says otherwise. Raises TooManyAttempts.

    It is noted before anything is compared, so that attempts side by side count too.
    """
    with database.transaction() as cursor:
        for word in sorted((f"account {account}", f"address {address}")):
            cursor.execute(_SQL["one_at_a_time"], word=plain(word))
        cursor.execute(_SQL["forget_failures"], window=WINDOW)
        row = cursor.row(_SQL["failures"], account=plain(account), address=plain(address), window=WINDOW)
        assert row is not None
        if row["of_account"] >= OF_ACCOUNT or row["of_address"] >= OF_ADDRESS:
            raise TooManyAttempts(hint=f"wait for {WINDOW / 60:.0f} minutes, and try again")
        cursor.execute(_SQL["failed"], account=plain(account), address=plain(address))


def succeeded(database: Database, account: str) -> None:
    """Forget the failed attempts for an account to which somebody has signed in."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["succeeded"], account=plain(account))

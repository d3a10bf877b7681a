"""Signing keys: which keys sign the repository, which did, and until when two of them sign together.

The keys themselves are the publisher's; here is what everyone may know of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cleanroom_db.connection import Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load

_SQL = load("signing_keys")


@dataclass(frozen=True)
class SigningKey(Entity):
    """A key. `retires_at`: when its overlap with the next key ends; `retired_at` None: it signs.

    `expires_at` None: never. `public_key` is in ASCII armour.
    """

    fingerprint: str
    user_id: str
    public_key: str
    made_at: datetime
    expires_at: datetime | None
    signs_since: datetime
    retires_at: datetime | None
    retired_at: datetime | None
    why: str

    @property
    def state(self) -> str:
        """`signs`, `leaves` (it signs, with its successor, for some time) or `retired`."""
        if self.retired_at is not None:
            return "retired"
        return "signs" if self.retires_at is None else "leaves"


def everyone(database: Database) -> list[SigningKey]:
    """All keys, those that signed first before the others."""
    with database.transaction() as cursor:
        return [SigningKey.from_row(row) for row in cursor.rows(_SQL["all"])]


def add(
    database: Database,
    *,
    fingerprint: str,
    user_id: str,
    public_key: str,
    made_at: datetime,
    expires_at: datetime | None,
) -> None:
    """A key signs from now on; to say so twice is no harm."""
    with database.transaction() as cursor:
        cursor.execute(
            _SQL["add"],
            fingerprint=fingerprint,
            user_id=plain(user_id),
            public_key=public_key,
            made_at=made_at,
            expires_at=expires_at,
        )


def leave(database: Database, successor: str, at: datetime) -> None:
    """All keys that sign retire at a time, but `successor`."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["leave"], successor=successor, at=at)


def retire(database: Database, fingerprint: str, why: str) -> None:
    """A key signs no more. The last one that is left retires no more by itself."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["retire"], fingerprint=fingerprint, why=plain(why))
        cursor.execute(_SQL["stay"])


def extend(database: Database, fingerprint: str, expires_at: datetime | None, public_key: str) -> None:
    """A key is valid until another time."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["extend"], fingerprint=fingerprint, expires_at=expires_at, public_key=public_key)

"""The audit trail: who did what by hand, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cleanroom_db.connection import Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load

_SQL = load("audit")


@dataclass(frozen=True)
class Entry(Entity):
    """One thing that a person or a process did."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    reason: str
    detail: Mapping[str, Any]


def record(
    database: Database,
    actor: str,
    action: str,
    subject: str,
    *,
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Note that `actor` did `action` (`release retry`) to `subject` (`hello v1`)."""
    with database.transaction() as cursor:
        cursor.execute(
            _SQL["record"],
            actor=plain(actor),
            action=action,
            subject=plain(subject),
            reason=plain(reason),
            detail=detail or {},
        )


def list_latest(database: Database, subject: str | None = None, *, limit: int = 100) -> list[Entry]:
    """The latest entries, newest first."""
    with database.transaction() as cursor:
        return [Entry.from_row(row) for row in cursor.rows(_SQL["list"], subject=subject, limit=limit)]

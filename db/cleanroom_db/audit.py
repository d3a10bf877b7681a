"""The audit trail: who did what by hand, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cleanroom_db.connection import Cursor, Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load

_SQL = load("audit")


@dataclass(frozen=True)
class Entry(Entity):
    """One thing that a person or a process did, or (`allowed` False) was refused.

    `written_by` is the database's role that wrote it down; None: that was not noted yet.
    """

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    reason: str
    detail: Mapping[str, Any]
    allowed: bool
    written_by: str | None


def record(
    database: Database,
    actor: str,
    action: str,
    subject: str,
    *,
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
    allowed: bool = True,
) -> None:
    """Note that `actor` did `action` (`release retry`) to `subject` (`hello v1`), or was refused that."""
    with database.transaction() as cursor:
        cursor.execute(
            _SQL["record"],
            actor=plain(actor),
            action=action,
            subject=plain(subject),
            reason=plain(reason),
            detail=detail or {},
            allowed=allowed,
        )


def list_latest(database: Database, subject: str | None = None, *, limit: int = 100) -> list[Entry]:
    """The latest entries, newest first."""
    with database.transaction() as cursor:
        return [Entry.from_row(row) for row in cursor.rows(_SQL["list"], subject=subject, limit=limit)]


def since(cursor: Cursor, subject: str, entry: int) -> Entry | None:
    """The latest entry about a subject of what was done after an entry (0: ever); None where nothing was."""
    row = cursor.row(_SQL["since"], subject=plain(subject), entry=entry)
    return None if row is None else Entry.from_row(row)

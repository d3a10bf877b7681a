"""The workers that came to the master, and which version of the protocol they speak."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cleanroom_db.connection import Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load

_SQL = load("workers")


@dataclass(frozen=True)
class Worker(Entity):
    """A worker as it last came. `problem`: why it is given nothing to do; empty where it is."""

    name: str
    protocol: int
    problem: str
    attached_at: datetime


def attached(database: Database, name: str, protocol: int, problem: str) -> None:
    """A worker came."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["attached"], name=plain(name), protocol=protocol, problem=plain(problem))


def all_of(database: Database) -> list[Worker]:
    """All that ever came, by name."""
    with database.transaction() as cursor:
        return [Worker.from_row(row) for row in cursor.rows(_SQL["all"])]

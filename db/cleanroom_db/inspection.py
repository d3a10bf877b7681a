"""The database as whoever looks after it sees it: its version and size, what grows, what was spoiled lately."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cleanroom_db.connection import Database, Row
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load

_SQL = load("inspection")
_LIMIT = 50


@dataclass(frozen=True)
class Server(Entity):
    """The server. `number` is its version as 150014 is 15.14, `size` the database's in bytes, `time` its clock, in
    seconds since the epoch."""

    version: str
    number: int
    size: int
    time: float
    started_at: datetime


def server(database: Database) -> Server:
    """The server that answers."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["server"])
    assert row is not None
    return Server.from_row(row)


def addresses(database: Database) -> list[str]:
    """The addresses of all products' repositories; there may be passwords in them."""
    with database.transaction() as cursor:
        return [row["url"] for row in cursor.rows(_SQL["addresses"])]


def facts(database: Database) -> dict[str, list[Row]]:
    """Tables with their (estimated) rows and sizes, migrations, connections, and what went wrong lately."""
    with database.transaction() as cursor:
        return {
            "tables": cursor.rows(_SQL["tables"]),
            "migrations": cursor.rows(_SQL["migrations"]),
            "connections": cursor.rows(_SQL["connections"]),
            "spoiled_attempts": cursor.rows(_SQL["spoiled"], limit=_LIMIT),
            "watch_errors": cursor.rows(_SQL["watch_errors"], limit=_LIMIT),
        }

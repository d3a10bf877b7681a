"""What is published: channels and generations, as lists of bounded length."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cleanroom_db.connection import Database
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load

_SQL = load("published")

GENERATIONS = 50


@dataclass(frozen=True)
class Channel(Entity):
    """What a channel has now: files, and releases that they came from."""

    channel: str
    packages: int
    releases: int


@dataclass(frozen=True)
class Step(Entity):
    """A generation, and how many packages came and went with it."""

    number: int
    switched_at: datetime
    actor: str
    reason: str
    added: int
    removed: int
    has_previous: bool


def channels(database: Database) -> list[Channel]:
    """All channels that have something."""
    with database.transaction() as cursor:
        return [Channel.from_row(row) for row in cursor.rows(_SQL["channels"])]


def generations(database: Database, before: int | None = None) -> list[Step]:
    """Generations that consumers saw, newest first; one more than `GENERATIONS` where there are more."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["generations"], before=before, limit=GENERATIONS + 1)
    return [Step.from_row(row) for row in rows]

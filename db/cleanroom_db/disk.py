"""Whether the disk has room for anything new, as the master saw it last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cleanroom_db.connection import Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load

_SQL = load("housekeeping")


@dataclass(frozen=True)
class Disk(Entity):
    """A file system, in bytes; `place` says what is on it. `low_since` None: there is room for something new."""

    place: str
    free: int
    total: int
    least: int
    low_since: datetime | None
    seen_at: datetime

    @property
    def words(self) -> str:
        """That for people, in one line."""
        told = f"{self.free >> 20} of {self.total >> 20} MiB are free"
        if self.low_since is None:
            return f"{told}; below {self.least >> 20} nothing new is begun"
        return f"{told}, less than {self.least >> 20}: nothing new is begun until there is room"


def note(database: Database, place: str, *, free: int, total: int, least: int) -> None:
    """Say how full a file system is."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["note_disk"], place=plain(place), free=free, total=total, least=least, low=free < least)


def low(database: Database) -> Disk | None:
    """The file system for which nothing new is begun, if there is one."""
    return next((one for one in all_of(database) if one.low_since is not None), None)


def all_of(database: Database) -> list[Disk]:
    """What was last seen of each."""
    with database.transaction() as cursor:
        return [Disk.from_row(row) for row in cursor.rows(_SQL["disks"])]

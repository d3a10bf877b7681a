"""Deliveries: which files of the repository a remote has. Whoever brings them goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cleanroom_db.connection import Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load

_SQL = load("deliveries")


@dataclass(frozen=True)
class Delivery(Entity):
    """A remote. `generation` is what it has as a whole, `bringing` what is on its way, `problem` why that waits."""

    remote: str
    generation: int | None
    delivered_at: datetime | None
    bringing: int | None
    problem: str


def begin(database: Database, remote: str, generation: int) -> dict[str, str]:
    """Note what is brought to a remote; gives the files that it has, by their places, with their identities."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["begin"], remote=remote, generation=generation)
        return {row["place"]: row["identity"] for row in cursor.rows(_SQL["files"], remote=remote)}


def brought(database: Database, remote: str, files: Iterable[tuple[str, str]]) -> None:
    """Note files that a remote has: their places and identities."""
    with database.transaction() as cursor:
        cursor.insert_many(_SQL["brought"], [(remote, place, identity) for place, identity in files])


def removed(database: Database, remote: str, places: Iterable[str]) -> None:
    """Note files that a remote has no more."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["removed"], remote=remote, places=list(places))


def finish(database: Database, remote: str, generation: int) -> None:
    """Note that a remote has all of a generation, and nothing else."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["finish"], remote=remote, generation=generation)


def explain(database: Database, remote: str, problem: str) -> None:
    """Note why bringing goes no further."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["explain"], remote=remote, problem=plain(problem))


def forget(database: Database, remote: str) -> None:
    """Have everything brought again, because the remote has lost what it had."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["forget"], remote=remote)


def all_of(database: Database) -> list[Delivery]:
    """All remotes to which something was ever brought."""
    with database.transaction() as cursor:
        return [Delivery.from_row(row) for row in cursor.rows(_SQL["list"])]

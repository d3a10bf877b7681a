"""What is counted and measured, all of it at one moment, for monitoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cleanroom_db import disk, services
from cleanroom_db.connection import Cursor, Database, Row
from cleanroom_db.disk import Disk
from cleanroom_db.sql import load

_SQL = load("measures")


@dataclass(frozen=True)
class Histogram:
    """How many values lie at most at each of some bounds, the last of them beyond all; and their sum."""

    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True)
class Host:
    """A machine that runs guests. `silent`: seconds since it was last seen; `guests`: places for them, by what they are
    used for."""

    name: str
    state: str
    processors: int
    silent: float
    guests: Mapping[str, int]


@dataclass(frozen=True)
class Measures:
    """All of it; mappings are by the word that is counted."""

    releases: Mapping[str, int]
    waiting: int
    running: int
    longest_wait: float
    attempts: Mapping[str, int]
    phases: Mapping[str, Histogram]
    resets: Mapping[str, Histogram]
    publications: Mapping[str, int]
    generation: int
    notifications: Mapping[str, int]
    services: Mapping[str, float]
    hosts: tuple[Host, ...]
    disks: tuple[Disk, ...]


def measure(database: Database, phase_bounds: Sequence[float], reset_bounds: Sequence[float]) -> Measures:
    """Count and measure; bounds are upper ones, in seconds, and grow."""
    with database.transaction() as cursor:
        waiting = cursor.row(_SQL["waiting"])
        assert waiting is not None
        return Measures(
            _counts(cursor, "releases", "state"),
            waiting["waiting"],
            waiting["running"],
            waiting["longest"],
            _counts(cursor, "attempts", "outcome"),
            _histograms(cursor, "phases", phase_bounds),
            _histograms(cursor, "resets", reset_bounds),
            _counts(cursor, "publications", "channel"),
            cursor.value(_SQL["generation"]),
            _counts(cursor, "notifications", "state"),
            {row["name"]: row["silent"] for row in cursor.rows(_SQL["services"])},
            tuple(_host(row) for row in cursor.rows(_SQL["hosts"])),
            tuple(disk.all_of(database)),
        )


def database_size(database: Database) -> int:
    """The bytes that the database takes on its server's disk."""
    with database.transaction() as cursor:
        return int(cursor.value("SELECT pg_database_size(current_database())"))


def _host(row: Row) -> Host:
    known = services.Host.from_row(row)
    guests = {word: getattr(known, word) for word in ("free", "ready", "running", "drained")}
    return Host(known.name, known.state, known.processors, row["silent"], guests)


def _counts(cursor: Cursor, block: str, word: str) -> dict[str, int]:
    return {row[word]: row["number"] for row in cursor.rows(_SQL[block])}


def _histograms(cursor: Cursor, block: str, bounds: Sequence[float]) -> dict[str, Histogram]:
    counts: dict[str, list[int]] = {}
    totals: dict[str, float] = {}
    for row in cursor.rows(_SQL[block], bounds=sorted(-bound for bound in bounds)):
        counts.setdefault(row["label"], [0] * (len(bounds) + 1))[row["place"]] += row["number"]
        totals[row["label"]] = totals.get(row["label"], 0.0) + row["seconds"]
    return {label: Histogram(tuple(found), totals[label]) for label, found in counts.items()}

"""What became of times and tests lately: of releases, of resets, of images and targets, of single cases.

Each looks at so many of the latest rows, so that it costs the same however long the record is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cleanroom_db.connection import Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import ReleaseState

_SQL = load("trends")

RELEASES = 100
RESETS = 500
PHASES = 2000
BUILDS = 1000
TARGETS = 200
_CASE_RELEASES = 30
_CASES = 100


@dataclass(frozen=True)
class Ended(Entity):
    """A release that ended. Seconds None: nothing was built, or nothing published."""

    product: str
    ref: str
    state: ReleaseState
    created_at: datetime
    build_seconds: float | None
    passed: int
    failed: int
    published_seconds: float | None

    @property
    def pass_rate(self) -> float | None:
        """The share of its tests that passed; None where none ran."""
        ran = self.passed + self.failed
        return self.passed / ran if ran else None


@dataclass(frozen=True)
class ResetOf(Entity):
    """How long it took to have a clean guest."""

    isolation: str
    method: str
    seconds: float
    started_at: datetime


@dataclass(frozen=True)
class UsedImage(Entity):
    """An image of one content, as phases ran in it."""

    image: str
    digest: str
    first_at: datetime
    last_at: datetime
    phases: int
    reset_seconds: float | None


@dataclass(frozen=True)
class UsedTarget(Entity):
    """A target, and how its latest builds went."""

    target: str
    builds: int
    passed: int
    failed: int
    last_at: datetime | None


@dataclass(frozen=True)
class Restless(Entity):
    """A case that did not always pass lately."""

    name: str
    failed: int
    flaky: int
    last_at: datetime | None


def releases(database: Database, product: str | None = None) -> list[Ended]:
    """The latest releases that have ended (of one product), oldest first."""
    with database.transaction() as cursor:
        if product is None:
            rows = cursor.rows(_SQL["releases"], limit=RELEASES)
        else:
            rows = cursor.rows(_SQL["releases_of"], product=plain(product), limit=RELEASES)
    return [Ended.from_row(row) for row in rows]


def resets(database: Database, *, limit: int = RESETS) -> list[ResetOf]:
    """The latest resets of guests, oldest first."""
    with database.transaction() as cursor:
        return [ResetOf.from_row(row) for row in cursor.rows(_SQL["resets"], limit=limit)]


def images(database: Database) -> list[UsedImage]:
    """The images of the latest phases, by name, the newest first."""
    with database.transaction() as cursor:
        return [UsedImage.from_row(row) for row in cursor.rows(_SQL["images"], limit=PHASES)]


def targets(database: Database) -> list[UsedTarget]:
    """The targets of the latest builds, the most used first."""
    with database.transaction() as cursor:
        return [UsedTarget.from_row(row) for row in cursor.rows(_SQL["targets"], limit=BUILDS, most=TARGETS)]


def restless(database: Database, product: str) -> list[Restless]:
    """The cases of a product that failed or were flaky in its latest releases, the most often first."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["restless"], product=plain(product), releases=_CASE_RELEASES, limit=_CASES)
    return [Restless.from_row(row) for row in rows]

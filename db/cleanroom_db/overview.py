"""Many releases at once: the newest ones by target, and what is worked on now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cleanroom_db.connection import Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import ReleaseState, TrialPurpose
from cleanroom_recipes.model import Outcome, RefKind

_SQL = load("overview")

# Releases of one page, targets that get a column of their own, and what is listed of work that goes on.
RELEASES = 50
COLUMNS = 6
RUNNING = 50
PRODUCTS = 100
# An estimate is the median of so many earlier runs, looked for in so many releases of the product.
_RUNS = 10
_LOOKED_AT = 40
_CHANNELS = 50
_NAMED = 20


@dataclass(frozen=True)
class Filter:
    """Which releases are asked for; None: all.

    `product` is a part of the product's name, `exactly` all of it, `before` the id of a release.
    """

    product: str | None = None
    exactly: str | None = None
    channel: str | None = None
    state: ReleaseState | None = None
    before: int | None = None

    @property
    def narrows(self) -> bool:
        """Whether it leaves releases out, whatever page is looked at."""
        return any(value is not None for value in (self.product, self.channel, self.state))


@dataclass(frozen=True)
class Listed(Entity):
    """A release as one line. `finished_at` None: its builds go on."""

    id: int
    product: str
    ref: str
    version: str | None
    kind: RefKind
    channel: str
    state: ReleaseState
    why: str
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class Cell(Entity):
    """How one build stands. `outcome` None: it is not at its end, and `phase` is the one that runs, if one does."""

    release_id: int
    target: str
    number: int
    outcome: Outcome | None
    started_at: datetime | None
    phase: str | None


@dataclass(frozen=True)
class Matrix:
    """Releases by target: `cells` by release and target; `further` counts what stands on targets without a column."""

    releases: tuple[Listed, ...]
    targets: tuple[str, ...]
    cells: Mapping[tuple[int, str], Cell]
    further: Mapping[int, Mapping[Outcome | None, int]]
    next: int | None  # what to ask for as `before` to see older ones; None: there are none


@dataclass(frozen=True)
class Running(Entity):
    """An attempt that is worked on. `phase` None: between two; `usual_seconds` None: the phase never passed before."""

    attempt: int
    product: str
    ref: str
    trial: int | None
    purpose: TrialPurpose | None
    target: str
    number: int
    worker: str | None
    started_at: datetime
    phase: str | None
    replay: int | None
    phase_started_at: datetime | None
    seconds: float
    step_id: int | None
    step: str | None
    usual_seconds: float | None

    @property
    def left_seconds(self) -> float | None:
        """How long the phase may take yet, by its history; negative: it takes longer than usual."""
        return None if self.usual_seconds is None else self.usual_seconds - self.seconds


@dataclass(frozen=True)
class Watched(Entity):
    """A product with its latest release; the release's fields are None where there is none."""

    name: str
    watched_at: datetime | None
    watch_error: str | None
    ref: str | None
    version: str | None
    state: ReleaseState | None
    why: str | None
    created_at: datetime | None


@dataclass(frozen=True)
class InChannel(Entity):
    """What a channel publishes of a product, since a generation."""

    channel: str
    ref: str
    version: str | None
    generation: int
    at: datetime


@dataclass(frozen=True)
class Present(Entity):
    """What an installation has at all."""

    products: bool
    events: bool
    releases: bool


def matrix(database: Database, wanted: Filter, *, limit: int = RELEASES, columns: int = COLUMNS) -> Matrix:
    """The newest releases, and how they stand on the targets that most of them have."""
    part = None if wanted.product is None else plain(wanted.product)
    exactly = None if wanted.exactly is None else [wanted.exactly]
    with database.transaction() as cursor:
        if part is not None:
            # Few products are found by an index, and many after few releases.
            named = [row["name"] for row in cursor.rows(_SQL["named"], part=part, limit=_NAMED + 1)]
            part, exactly = (None, named) if len(named) <= _NAMED else (part, None)
        rows = cursor.rows(
            _SQL["releases"],
            product=part,
            exactly=exactly,
            channel=wanted.channel,
            state=wanted.state,
            before=wanted.before,
            limit=limit + 1,
        )
        found = tuple(Listed.from_row(row) for row in rows[:limit])
        ids = [release.id for release in found]
        targets = [row["target"] for row in cursor.rows(_SQL["columns"], releases=ids, limit=columns)]
        cells = [Cell.from_row(row) for row in cursor.rows(_SQL["cells"], releases=ids, targets=targets)]
        further: dict[int, dict[Outcome | None, int]] = {}
        # With fewer targets than columns there are no others.
        rows_of_others = cursor.rows(_SQL["further"], releases=ids, targets=targets) if len(targets) == columns else []
        for row in rows_of_others:
            outcome = None if row["outcome"] is None else Outcome(row["outcome"])
            further.setdefault(row["release_id"], {})[outcome] = row["number"]
    return Matrix(
        found,
        tuple(sorted(targets)),
        {(cell.release_id, cell.target): cell for cell in cells},
        further,
        found[-1].id if len(rows) > limit else None,
    )


def running(database: Database) -> list[Running]:
    """What is worked on now, what has run longest first."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["running"], limit=RUNNING, runs=_RUNS, looked_at=_LOOKED_AT)
    return [Running.from_row(row) for row in rows]


def present(database: Database) -> Present:
    """What there is at all."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["counts"])
    assert row is not None
    return Present.from_row(row)


def channels(database: Database) -> list[str]:
    """The channels that releases are in, by name."""
    with database.transaction() as cursor:
        return [row["channel"] for row in cursor.rows(_SQL["channels"], limit=_CHANNELS)]


def products(database: Database, part: str | None = None, *, after: str = "") -> list[Watched]:
    """Watched products by name, those after one; one more than `PRODUCTS` where there are more."""
    named = None if part is None else plain(part)
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["products"], part=named, after=plain(after), limit=PRODUCTS + 1)
    return [Watched.from_row(row) for row in rows]


def in_channels(database: Database, product: str) -> list[InChannel]:
    """What each channel publishes of a product."""
    with database.transaction() as cursor:
        return [InChannel.from_row(row) for row in cursor.rows(_SQL["in_channels"], product=product)]

"""Canaries: consumers in clean guests, who install what a generation brought in.

The publisher asks for them in the transaction that records a generation, the master has them run as trials, and the
publisher takes out again what a consumer could not install. What the surroundings spoil is tried again later, and
takes nothing out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cleanroom_db.connection import Cursor, Database, Row, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_recipes.model import Outcome, RefKind

_SQL = load("canaries")

# Who asks for them, and takes out what fails.
ACTOR = "canary"
# How long, in seconds, after the surroundings spoiled a canary another one is begun.
PAUSE = 600.0
# The steps that make a machine ready, which are not the consumer's time.
_PREPARES = ("update", "dnf")
_SPOILED = (Outcome.INFRASTRUCTURE, Outcome.CANCELLED)


@dataclass(frozen=True)
class Waiting(Entity):
    """A release in a channel (`place`) that a consumer is to install."""

    place: int
    channel: str
    added_in: int
    id: int
    product: str
    ref: str
    commit: str
    kind: RefKind
    recipe: Mapping[str, Any]


@dataclass(frozen=True)
class Client(Entity):
    """An image and a client, as `image/format`; `upgrades`: there is something earlier to upgrade from."""

    target: str
    upgrades: bool


@dataclass(frozen=True)
class Wanted(Entity):
    """A package that a consumer asks for by its name and version."""

    name: str
    version: str
    architecture: str


@dataclass(frozen=True)
class Failed(Entity):
    """A release that a consumer could not install from a channel, and why, in the client's words."""

    place: int
    release_id: int
    channel: str
    added_in: int
    product: str
    ref: str
    target: str
    why: str


@dataclass(frozen=True)
class Told:
    """How one client of one image did. `outcome` None: not yet; `seconds` are the consumer's own, of each phase."""

    target: str
    outcome: Outcome | None
    why: str
    phases: tuple[Mapping[str, Any], ...]
    waits: str

    @property
    def client(self) -> str:
        """What consumers of this format install with."""
        return "dnf" if self.target.endswith("/rpm") else "apt"

    @property
    def said(self) -> str:
        """One sentence."""
        image = self.target.partition("/")[0]
        if self.outcome is None:
            return f"{self.client} on {image}: {self.waits or 'not yet'}"
        if self.outcome in _SPOILED:
            return f"{self.client} on {image} could not be tried: {self.why}"
        if self.outcome is Outcome.FAILED:
            return f"{self.client} on {image} failed: {self.why}"
        done = [
            f"{_DONE.get(phase['name'], phase['name'])} by {self.client} on {image} in {_seconds(phase['seconds'])}"
            for phase in self.phases
            if phase["outcome"] == Outcome.PASSED
        ]
        return ", ".join(done) or f"nothing to install by {self.client} on {image}"


_DONE = {"install": "installed", "upgrade": "upgraded"}


@dataclass(frozen=True)
class Canary:
    """A release in a channel, and how its consumers did. `there`: the channel has it; `insisted`: it stays anyway."""

    product: str
    ref: str
    channel: str
    generation: int
    there: bool
    removal: str | None
    insisted: bool
    trial: int | None
    problem: str
    finished_at: datetime | None
    targets: tuple[Told, ...]

    @property
    def state(self) -> str:
        """`waits`, `passed`, `leaving` and then `failed`, `spoiled` where the surroundings are to blame, or `gone`
        before it was known."""
        outcomes = [one.outcome for one in self.targets]
        if Outcome.FAILED in outcomes:
            return "leaving" if self.there and not (self.problem or self.insisted) else "failed"
        if not outcomes or None in outcomes:
            return "waits" if self.there else "gone"
        return "spoiled" if any(outcome in _SPOILED for outcome in outcomes) else "passed"

    @property
    def said(self) -> str:
        """How it did, in one sentence for people."""
        told = "; ".join(one.said for one in self.targets) or "waits for a clean guest"
        if self.state == "gone":
            return "it left before a consumer had installed it"
        if self.state == "spoiled" and self.there:
            told += "; this is not the release's fault, and is tried again"
        if self.state == "leaving":
            told += "; it is being taken out"
        if self.state == "failed" and self.there:
            told += (
                f"; it could not be taken out: {self.problem}"
                if self.problem
                else "; it stays, since a person had it published again"
            )
        return told


def demand(cursor: Cursor, generation: int, publications: Sequence[int]) -> None:
    """Have consumers install what a generation that is being recorded brings in by these publications."""
    cursor.execute(_SQL["demand"], number=generation, publications=list(publications))


def waiting(database: Database, *, limit: int) -> list[Waiting]:
    """Releases that consumers see and that are to be installed now, oldest first."""
    with database.transaction() as cursor:
        return [Waiting.from_row(row) for row in cursor.rows(_SQL["waiting"], limit=limit, pause=PAUSE)]


def clients(cursor: Cursor, one: Waiting) -> list[Client]:
    """Who is to install it."""
    rows = cursor.rows(_SQL["targets"], release=one.id, channel=one.channel, added_in=one.added_in)
    return [Client.from_row(row) for row in rows]


def begin(cursor: Cursor, place: int, trial: int) -> None:
    """Note in which trial it is done."""
    cursor.execute(_SQL["begin"], place=place, trial=trial)


def packages(database: Database, trial: int, image: str, form: str, *, earlier: bool = False) -> list[Wanted]:
    """What a trial's consumer asks for by a client of an image; with `earlier`, what was there before it."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["packages"], trial=trial, image=image, format=form, earlier=earlier)
    return [Wanted.from_row(row) for row in rows]


def failed(database: Database) -> list[Failed]:
    """The releases that are to be taken out."""
    with database.transaction() as cursor:
        return [Failed.from_row(row) for row in cursor.rows(_SQL["failed"])]


def give_up(database: Database, place: int, problem: str) -> None:
    """Note why a release could not be taken out; that is not tried again."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["give_up"], place=place, problem=plain(problem))


def of_release(cursor: Cursor, release_id: int) -> list[Canary]:
    """How a release did in each channel into which it ever came, oldest first."""
    return _told(cursor, cursor.rows(_SQL["places_of_release"], release=release_id))


def of_generations(database: Database, numbers: Sequence[int]) -> dict[int, list[Canary]]:
    """How what generations brought in did, by generation."""
    found: dict[int, list[Canary]] = {}
    with database.transaction() as cursor:
        for one in _told(cursor, cursor.rows(_SQL["places_of_generations"], generations=list(numbers))):
            found.setdefault(one.generation, []).append(one)
    return found


def latest(database: Database) -> list[Canary]:
    """How what came last into the repository did: of the latest generation with something to install."""
    with database.transaction() as cursor:
        number = cursor.value(_SQL["latest"])
        return [] if number is None else _told(cursor, cursor.rows(_SQL["places_of_generations"], generations=[number]))


def _told(cursor: Cursor, places: Sequence[Row]) -> list[Canary]:
    """How those did that came into some places."""
    rows: dict[int, list[Row]] = {}
    for row in cursor.rows(_SQL["told"], prepares=list(_PREPARES), places=[place["id"] for place in places]):
        rows.setdefault(row["place"], []).append(row)
    return [_canary(some) for some in rows.values()]


def _canary(rows: Sequence[Row]) -> Canary:
    first = rows[0]
    return Canary(
        **{name: first[name] for name in ("product", "ref", "channel", "generation", "there", "removal", "insisted")},
        trial=first["trial"],
        problem=first["problem"],
        finished_at=first["finished_at"],
        targets=tuple(_target(row) for row in rows if row["target"] is not None),
    )


def _target(row: Row) -> Told:
    outcome = None if row["outcome"] is None else Outcome(row["outcome"])
    if row["pauses"]:
        waits = f"attempt {row['attempt']} waits a while, because: {row['spoiled']}"
    else:
        waits = "is installing" if row["started_at"] is not None else "waits for a worker"
    return Told(row["target"], outcome, row["why"], tuple(row["phases"]), waits)


def _seconds(value: float | None) -> str:
    return "no time" if value is None else f"{value:.0f} s" if value >= 1 else f"{value:.1f} s"

"""Nights: what a channel publishes, tested again without a new tag, and what changed around what fails.

A failure there is none of the product's: it passed before with the same source. So what differs between the last
time that the phase passed and now is told: the image, the packages that were installed, or the release.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cleanroom_db.connection import Cursor, Database, Row, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_recipes.model import Outcome

_SQL = load("nights")

# Packages that a sentence names; all are in the data.
_TOLD = 20
_DIGEST_TOLD = 12


@dataclass(frozen=True)
class Night(Entity):
    """One run of all that a channel publishes. `date` None: a person asked for it."""

    id: int
    channel: str
    date: datetime.date | None
    requested_by: str
    started_at: datetime.datetime
    trials: tuple[int, ...]


@dataclass(frozen=True)
class Moved:
    """Something that was one thing then and is another now."""

    name: str
    before: str
    now: str


@dataclass(frozen=True)
class Changed:
    """What differs around a phase since it last passed, which was at `since` with `ref`.

    `image` None: the same image; `release` None: the same release. `known` is False where a guest could not say which
    packages it had.
    """

    since: datetime.datetime
    ref: str
    image: Moved | None = None
    release: Moved | None = None
    upgraded: tuple[Moved, ...] = ()
    added: Mapping[str, str] = field(default_factory=dict)
    removed: Mapping[str, str] = field(default_factory=dict)
    known: bool = True

    @property
    def sentence(self) -> str:
        """What changed, in one sentence."""
        since = f"since it passed at {self.since.astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC"
        parts = [f"{self.release.before} -> {self.release.now}"] if self.release else []
        if self.image:
            before, now = self.image.before[:_DIGEST_TOLD], self.image.now[:_DIGEST_TOLD]
            parts.append(f"image {self.image.name} {before} -> {now}")
        packages = [f"{one.name} {one.before} -> {one.now}" for one in self.upgraded]
        packages += [f"+{name} {version}" for name, version in self.added.items()]
        packages += [f"-{name} {version}" for name, version in self.removed.items()]
        parts += packages[:_TOLD]
        if len(packages) > _TOLD:
            parts.append(f"{len(packages) - _TOLD} more packages")
        if not self.known:
            parts.append("packages that were not recorded")
        return f"{since}, {'changed: ' + ', '.join(parts) if parts else 'neither image nor packages changed'}"


@dataclass(frozen=True)
class Result:
    """How one product did on one target. `outcome` None: it goes on; `changed` None: it passes, or never did."""

    product: str
    ref: str
    target: str
    outcome: Outcome | None
    why: str
    phase: str | None
    changed: Changed | None


def begin(cursor: Cursor, channel: str, date: datetime.date | None, requested_by: str) -> int | None:
    """Begin a night; None if that of this date was begun before."""
    found: int | None = cursor.value(_SQL["begin"], channel=channel, date=date, requested_by=plain(requested_by))
    return found


def set_trials(cursor: Cursor, night_id: int, trials: Iterable[int]) -> None:
    """Keep of which trials a night consists."""
    cursor.execute(_SQL["set_trials"], id=night_id, trials=list(trials))


def latest(database: Database, channel: str) -> datetime.date | None:
    """The date of the last night of a channel that a schedule began."""
    with database.transaction() as cursor:
        found: datetime.date | None = cursor.value(_SQL["latest"], channel=channel)
    return found


def history(database: Database, channel: str, *, limit: int = 30) -> list[Night]:
    """The nights of a channel, newest first."""
    with database.transaction() as cursor:
        return [Night.from_row(row) for row in cursor.rows(_SQL["history"], channel=channel, limit=limit)]


def results(database: Database, night: Night) -> list[Result]:
    """How each product did on each target, and what changed around what failed."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["results"], trials=night.trials)
        return [_result(cursor, row) for row in rows]


def compare(image: str, before: Row, now: Row) -> Changed:
    """What differs between two runs of a phase: rows with `ref`, `image_digest` and `packages`, the first with `at`."""
    then, packages = before["packages"], now["packages"]
    known = then is not None and packages is not None
    old, new = (then, packages) if known else ({}, {})
    digests = str(before["image_digest"] or "unknown"), str(now["image_digest"] or "unknown")
    return Changed(
        before["at"],
        before["ref"],
        Moved(image, *digests) if digests[0] != digests[1] else None,
        Moved("release", before["ref"], now["ref"]) if before["ref"] != now["ref"] else None,
        tuple(Moved(name, old[name], new[name]) for name in sorted(old.keys() & new.keys()) if old[name] != new[name]),
        {name: new[name] for name in sorted(new.keys() - old.keys())},
        {name: old[name] for name in sorted(old.keys() - new.keys())},
        known,
    )


def _result(cursor: Cursor, row: Row) -> Result:
    changed = None
    if row["phase"] is not None:
        before = cursor.row(
            _SQL["good"],
            product=row["product"],
            channel=row["channel"],
            target=row["target"],
            phase=row["phase"],
            ref=row["ref"],
            trial=row["trial_id"],
        )
        changed = None if before is None else compare(str(row["target"]).partition("/")[0], before, row)
    outcome = None if row["outcome"] is None else Outcome(row["outcome"])
    return Result(row["product"], row["ref"], row["target"], outcome, row["why"], row["phase"], changed)

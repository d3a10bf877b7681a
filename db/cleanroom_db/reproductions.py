"""Whether builds can be reproduced: each is made again as a trial, in other circumstances, and compared by file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cleanroom_db import trials
from cleanroom_db.connection import Cursor, Database
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import TrialPurpose
from cleanroom_db.trials import NewTrial, Trial
from cleanroom_recipes.codec import to_plain
from cleanroom_recipes.conditions import Conditions
from cleanroom_recipes.model import Outcome, RefKind
from cleanroom_recipes.plan import COMPARISON

_SQL = load("reproductions")


@dataclass(frozen=True)
class Pair(Entity):
    """A file as both builds made it: its SHA-256 in each, None where that one did not make it."""

    file: str
    sha256: str | None
    again_sha256: str | None

    @property
    def same(self) -> bool:
        """Whether both made the same bytes."""
        return self.sha256 == self.again_sha256


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What is known of building an attempt's artifacts again.

    `outcome` and `compared_at` None: the trial goes on; `compared_at` None after that: it made nothing to compare.
    `report` is the digest of the log in which diffoscope tells what differs.
    """

    trial: int
    outcome: Outcome | None
    why: str
    compared_at: datetime | None
    report: str | None
    artifacts: tuple[Pair, ...]

    @property
    def different(self) -> tuple[str, ...]:
        """The files that differ, by name."""
        return tuple(pair.file for pair in self.artifacts if not pair.same)


@dataclass(frozen=True)
class Original(Entity):
    """A file of the release that is another one now."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Release:
    """What is needed of a release to build it again."""

    id: int
    product: str
    ref: str
    commit: str
    kind: RefKind
    recipe: Mapping[str, Any]
    channel: str


def begin(cursor: Cursor, release: Release, *, awaited: bool) -> None:
    """Have each build of a (locked) release that ended well be made again, once; `awaited`: a gate waits for that."""
    for row in cursor.rows(_SQL["missing"], release=release.id):
        new = NewTrial(
            purpose=TrialPurpose.REPRODUCTION,
            product=release.product,
            ref=release.ref,
            commit=release.commit,
            kind=release.kind,
            recipe=release.recipe,
            channel=release.channel,
            builds=[(row["target"], (str(row["phases"][0]), COMPARISON))],
            requested_by="verdict",
            conditions=to_plain(Conditions(image_digest=row["image_digest"], varied=True)),
            subject=release.id,
            priority=1 if awaited else 2,
        )
        cursor.execute(_SQL["insert"], attempt=row["attempt"], trial=trials.insert(cursor, new))


def record(cursor: Cursor, trial: Trial) -> None:
    """Compare what a trial that has ended made with the release's own; nothing happens for another purpose."""
    if trial.purpose is TrialPurpose.REPRODUCTION:
        cursor.execute(_SQL["record"], trial=trial.id)


def originals(database: Database, trial_id: int, attempt_id: int) -> list[Original]:
    """The release's files that an attempt of a trial made otherwise or not at all, by name."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["originals"], trial=trial_id, attempt=attempt_id)
    return [Original.from_row(row) for row in rows]


def of_attempts(cursor: Cursor, attempts: Iterable[int]) -> dict[int, Reproduction]:
    """What is known of building some attempts' artifacts again, by attempt."""
    wanted = list(attempts)
    found = cursor.rows(_SQL["of_attempts"], attempts=wanted, phase=COMPARISON)
    if not found:
        return {}
    pairs: dict[int, list[Pair]] = {}
    for row in cursor.rows(_SQL["artifacts"], attempts=wanted):
        pairs.setdefault(row["attempt_id"], []).append(Pair(row["file"], row["sha256"], row["again_sha256"]))
    return {
        row["attempt_id"]: Reproduction(
            row["trial_id"],
            None if row["outcome"] is None else Outcome(row["outcome"]),
            row["why"],
            row["compared_at"],
            row["report"],
            tuple(pairs.get(row["attempt_id"], ())),
        )
        for row in found
    }

"""Trials: builds that are made to learn something, and of which nothing is ever published.

A trial is built like a release: a build for each target, attempts under leases, phases in clean guests, and what the
infrastructure spoils is tried again. It ends with an outcome; a release that waits for it (its subject) is judged
again then. Locks are taken in the order release, trial, attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cleanroom_base.errors import InputError
from cleanroom_db.connection import Cursor, Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import TrialPurpose
from cleanroom_recipes.model import Outcome, RefKind

_SQL = load("trials")

# How a trial ends by how its builds did, the worst first.
_WORST = (
    Outcome.INFRASTRUCTURE,
    Outcome.CANCELLED,
    Outcome.FAILED,
    Outcome.REGRESSED,
    Outcome.FLAKY,
    Outcome.PASSED,
    Outcome.SKIPPED,
)


@dataclass(frozen=True)
class NewTrial:
    """A trial to be made. `builds` are targets (`image/format`) with their phases in order; `conditions` is a
    plain form of `cleanroom_recipes.conditions.Conditions`; `subject` the id of the release that waits for it.

    `priority` says what comes first where not all can be worked on: 0 is that of releases, larger ones come later.
    """

    purpose: TrialPurpose
    product: str
    ref: str
    commit: str
    kind: RefKind
    recipe: Mapping[str, Any]
    channel: str
    builds: Sequence[tuple[str, Sequence[str]]]
    requested_by: str
    conditions: Mapping[str, Any]
    subject: int | None = None
    priority: int = 1


@dataclass(frozen=True)
class Trial(Entity):
    """One trial. `outcome` None: it goes on."""

    id: int
    purpose: TrialPurpose
    product: str
    ref: str
    commit: str
    kind: RefKind
    recipe: Mapping[str, Any]
    channel: str
    conditions: Mapping[str, Any]
    subject: int | None
    requested_by: str
    created_at: datetime
    finished_at: datetime | None
    outcome: Outcome | None
    why: str


def request(database: Database, new: NewTrial) -> int:
    """Have a trial made; returns its id. Raises InputError if it has no builds."""
    if not new.builds:
        raise InputError(f"a {new.purpose} of {new.product} {new.ref} has nothing to build")
    with database.transaction() as cursor:
        return insert(cursor, new)


def insert(cursor: Cursor, new: NewTrial) -> int:
    """The rows of a trial: the trial, its builds, their first attempts."""
    trial = int(
        cursor.value(
            _SQL["insert"],
            purpose=new.purpose,
            product=new.product,
            ref=plain(new.ref),
            commit=new.commit,
            kind=new.kind,
            recipe=new.recipe,
            channel=new.channel,
            conditions=new.conditions,
            subject=new.subject,
            requested_by=plain(new.requested_by),
        )
    )
    builds = [(trial, target, list(phases)) for target, phases in new.builds]
    ids = [row["id"] for row in cursor.insert_many(_SQL["insert_builds"], builds)]
    cursor.execute(_SQL["insert_attempts"], builds=ids, priority=new.priority)
    return trial


def get(database: Database, trial_id: int) -> Trial:
    """One trial. Raises InputError."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["get"], id=trial_id)
    if row is None:
        raise InputError(f"there is no trial {trial_id}")
    return Trial.from_row(row)


def list_latest(
    database: Database,
    *,
    purpose: TrialPurpose | None = None,
    product: str | None = None,
    subject: int | None = None,
    limit: int = 100,
) -> list[Trial]:
    """The latest trials, newest first."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["list"], purpose=purpose, product=product, subject=subject, limit=limit)
    return [Trial.from_row(row) for row in rows]


def lock(cursor: Cursor, trial_id: int) -> Trial:
    """The trial, which nobody else changes until the transaction's end."""
    row = cursor.row(_SQL["lock"], id=trial_id)
    if row is None:
        raise InputError(f"there is no trial {trial_id}")
    return Trial.from_row(row)


def judge(cursor: Cursor, trial: Trial) -> bool:
    """End a (locked) trial whose builds have all ended, as its worst build did; False while one goes on."""
    rows = cursor.rows(_SQL["attempts"], id=trial.id)
    if any(row["outcome"] is None for row in rows):
        return False
    worst = min(rows, key=lambda row: _WORST.index(Outcome(row["outcome"])))
    why = f"{worst['target']}: {worst['why']}" if worst["why"] else ""
    return cursor.execute(_SQL["finish"], id=trial.id, outcome=worst["outcome"], why=plain(why)) == 1

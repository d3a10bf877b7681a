"""Steps with their logs: what one was a part of, and what it said."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cleanroom_base.errors import InputError
from cleanroom_db.connection import Database
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import TrialPurpose
from cleanroom_recipes.model import Outcome

_SQL = load("steps")

_FAILING = 50
_BESIDE = 500


@dataclass(frozen=True)
class Step(Entity):
    """A step, and where it belongs. `outcome` None: it runs; `log_sha256` None: its log is not complete, or empty;
    `log_removed_at` None: it is kept.
    """

    id: int
    name: str
    outcome: Outcome | None
    exit_status: int | None
    why: str
    started_at: datetime
    seconds: float | None
    log_sha256: str | None
    log_size: int
    log_truncated: bool
    log_removed_at: datetime | None
    remark: str
    phase_id: int
    phase: str
    replay: int
    attempt: int
    number: int
    target: str
    product: str
    ref: str
    trial: int | None
    purpose: TrialPurpose | None


@dataclass(frozen=True)
class FailingCase(Entity):
    """A case of a step that did not pass. `line` None: not recognised in the log."""

    name: str
    outcome: Outcome
    message: str
    line: int | None


@dataclass(frozen=True)
class Beside(Entity):
    """A step of the same attempt."""

    id: int
    name: str
    outcome: Outcome | None
    phase: str
    replay: int


def find(database: Database, step_id: int) -> Step:
    """One step. Raises InputError."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["find"], step=step_id)
    if row is None:
        raise InputError(f"there is no step {step_id}")
    return Step.from_row(row)


def failing(database: Database, step: Step) -> list[FailingCase]:
    """The first cases of a step that did not pass."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["failing"], phase=step.phase_id, step=step.name, limit=_FAILING)
    return [FailingCase.from_row(row) for row in rows]


def beside(database: Database, step: Step) -> list[Beside]:
    """The steps of the same attempt, in their order."""
    with database.transaction() as cursor:
        return [Beside.from_row(row) for row in cursor.rows(_SQL["beside"], attempt=step.attempt, limit=_BESIDE)]

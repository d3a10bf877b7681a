"""What happens in an attempt: phases, steps, tests and artifacts, written as it runs and only under its lease."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cleanroom_db.attempts import Lease, require
from cleanroom_db.connection import Cursor, Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_recipes.model import Outcome

_SQL = load("phases")


@dataclass(frozen=True)
class Reset:
    """How a phase got its clean guest."""

    image: str
    image_digest: str
    isolation: str
    network: str
    method: str
    seconds: float


@dataclass(frozen=True)
class StepResult:
    """How a step ended. `exit_status` None: it has none; `log_sha256` None: it printed nothing.

    `remark` says what is not among its test cases.
    """

    outcome: Outcome
    exit_status: int | None
    seconds: float
    why: str = ""
    log_sha256: str | None = None
    log_size: int = 0
    log_truncated: bool = False
    remark: str = ""


@dataclass(frozen=True)
class TestResult:
    """How a test ended. `seconds` None: not said; `line`, from 1, is its place in the step's log, None: it has none."""

    __test__ = False

    name: str
    outcome: Outcome
    seconds: float | None = None
    message: str = ""
    line: int | None = None


@dataclass(frozen=True)
class NewArtifact:
    """A file that a phase made; the last three are None where it is no package."""

    file: str
    sha256: str
    size: int
    kind: str
    package: str | None = None
    version: str | None = None
    architecture: str | None = None


@dataclass(frozen=True)
class Artifact(Entity):
    """A recorded file of an attempt."""

    id: int
    attempt_id: int
    phase: str
    file: str
    sha256: str
    size: int
    kind: str
    package: str | None
    version: str | None
    architecture: str | None
    replay: int


@dataclass(frozen=True)
class Replayed:
    """What the replays of a phase say of it: of `runs` that count, the first included, `failures` failed.

    Both are None where no replay counts.
    """

    outcome: Outcome
    why: str
    runs: int | None
    failures: int | None


@dataclass(frozen=True)
class StepWithoutLog(Entity):
    """A step that has no log, with the names of its phase and its own."""

    id: int
    attempt_id: int
    phase: str
    replay: int
    step: str


def start(database: Database, held: Lease, position: int, name: str, *, replay: int = 0, alone: bool = False) -> int:
    """A phase begins, or its replay of that number (`alone`: of the failed tests only); return its id.

    To say so twice is no harm. Raises LeaseLost.
    """
    with database.transaction() as cursor:
        return _id(cursor, held, "start", position=position, name=name, replay=replay, alone=alone)


def installed(database: Database, held: Lease, phase_id: int, sha256: str) -> None:
    """Which packages are installed before a phase's tests, as one digest. Raises LeaseLost."""
    with database.transaction() as cursor:
        _write(cursor, held, "installed", phase=phase_id, sha256=sha256)


def settle(database: Database, held: Lease, phase_id: int, step: str, found: Replayed) -> None:
    """What its replays say of a phase, of its failed step and of its cases. Raises LeaseLost."""
    with database.transaction() as cursor:
        _write(
            cursor,
            held,
            "settle",
            phase=phase_id,
            outcome=found.outcome,
            why=plain(found.why),
            runs=found.runs,
            failures=found.failures,
        )
        if found.runs is not None:
            cursor.execute(_SQL["rate_cases"], phase=phase_id)
            cursor.execute(_SQL["recount_tests"], phase=phase_id)
            cursor.execute(_SQL["settle_step"], phase=phase_id, step=step, outcome=found.outcome, why=plain(found.why))


def reset(database: Database, held: Lease, phase_id: int, how: Reset) -> None:
    """A phase got its clean guest. Raises LeaseLost."""
    with database.transaction() as cursor:
        _write(
            cursor,
            held,
            "reset",
            phase=phase_id,
            image=how.image,
            image_digest=how.image_digest,
            isolation=how.isolation,
            network=how.network,
            method=how.method,
            seconds=how.seconds,
        )


def finish(
    database: Database,
    held: Lease,
    phase_id: int,
    outcome: Outcome,
    *,
    why: str = "",
    seconds: float,
    command_seconds: float,
    guest_went_off: bool = False,
) -> None:
    """A phase ended, after `seconds`, of which `command_seconds` in guest commands.

    `guest_went_off`: because its guest did, and by whom is not known. Raises LeaseLost.
    """
    with database.transaction() as cursor:
        _write(
            cursor,
            held,
            "finish",
            phase=phase_id,
            outcome=outcome,
            why=plain(why),
            seconds=seconds,
            command_seconds=command_seconds,
            guest_went_off=guest_went_off,
        )


def set_packages(database: Database, held: Lease, phase_id: int, packages: Mapping[str, str]) -> None:
    """Which packages were installed when a phase's steps had ended: versions by name. Raises LeaseLost."""
    digest = hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()
    with database.transaction() as cursor:
        cursor.execute(_SQL["insert_package_state"], digest=digest, packages=packages)
        _write(cursor, held, "set_package_state", phase=phase_id, digest=digest)


def start_step(database: Database, held: Lease, phase_id: int, position: int, name: str) -> int:
    """A step begins; return its id. To say so twice is no harm. Raises LeaseLost."""
    with database.transaction() as cursor:
        return _id(cursor, held, "start_step", phase=phase_id, position=position, name=name)


def finish_step(database: Database, held: Lease, step_id: int, result: StepResult) -> None:
    """A step ended. Raises LeaseLost."""
    with database.transaction() as cursor:
        _write(
            cursor,
            held,
            "finish_step",
            step=step_id,
            outcome=result.outcome,
            exit_status=result.exit_status,
            why=plain(result.why),
            seconds=result.seconds,
            log_sha256=result.log_sha256,
            log_size=result.log_size,
            log_truncated=result.log_truncated,
            remark=plain(result.remark),
        )


def add_tests(database: Database, held: Lease, phase_id: int, step: str, results: Iterable[TestResult]) -> None:
    """Results of a step's tests, added to those that are there. Raises LeaseLost."""
    cases = list(results)
    outcomes = [case.outcome for case in cases]
    rows = [
        (phase_id, step, plain(case.name), case.outcome, case.seconds, plain(case.message), case.line) for case in cases
    ]
    with database.transaction() as cursor:
        _write(
            cursor,
            held,
            "count_tests",
            phase=phase_id,
            passed=outcomes.count(Outcome.PASSED) + outcomes.count(Outcome.FLAKY),
            failed=outcomes.count(Outcome.FAILED),
            skipped=outcomes.count(Outcome.SKIPPED),
            flaky=outcomes.count(Outcome.FLAKY),
        )
        cursor.copy(_SQL["copy_tests"], rows)


def add_artifacts(
    database: Database, held: Lease, phase: str, files: Iterable[NewArtifact], *, replay: int = 0
) -> None:
    """Files that a phase (or its replay) made; those that are recorded already stay as they are. Raises LeaseLost."""
    rows = [
        (
            held.attempt_id,
            phase,
            replay,
            file.file,
            file.sha256,
            file.size,
            file.kind,
            file.package,
            file.version,
            file.architecture,
        )
        for file in files
    ]
    with database.transaction() as cursor:
        _write(cursor, held, "hold_lease")
        cursor.insert_many(_SQL["insert_artifacts"], rows)


def artifacts(database: Database, attempt_id: int) -> list[Artifact]:
    """The files of an attempt, by name."""
    with database.transaction() as cursor:
        return [Artifact.from_row(row) for row in cursor.rows(_SQL["artifacts"], attempt=attempt_id)]


def _write(cursor: Cursor, held: Lease, block: str, **parameters: object) -> None:
    require(held, cursor.execute(_SQL[block], attempt=held.attempt_id, owner=held.owner, **parameters))


def _id(cursor: Cursor, held: Lease, block: str, **parameters: object) -> int:
    new = cursor.value(_SQL[block], attempt=held.attempt_id, owner=held.owner, **parameters)
    require(held, 0 if new is None else 1)
    return int(new)


def without_log(database: Database, attempts: Iterable[int]) -> list[StepWithoutLog]:
    """The steps of some attempts that have no log."""
    with database.transaction() as cursor:
        return [StepWithoutLog.from_row(row) for row in cursor.rows(_SQL["without_log"], attempts=list(attempts))]


def attach_log(database: Database, step_id: int, sha256: str, size: int) -> None:
    """Give a step the log that was found after its attempt was given up; it changes nothing else of the step."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["attach_log"], step=step_id, sha256=sha256, size=size)

"""Provenance: what is known of how a release was built, and what was signed of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cleanroom_db.connection import Cursor, Database, Row
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load

_SQL = load("provenance")
BUILD = "build"
INSTALL = "install"


@dataclass(frozen=True)
class Source(Entity):
    """What was asked for, and by whom. `recorded_by` is who recorded the ref; `tagger` is what the tag says."""

    product: str
    url: str
    ref: str
    commit: str
    kind: str
    version: str | None
    channel: str
    requested_by: str
    recipe_digest: str
    gates: tuple[str, ...]
    recorded_by: str
    recorded_at: datetime
    tag_kind: str
    tagger: str | None
    signature: str
    tagged_at: datetime | None


@dataclass(frozen=True)
class RecordedPhase(Entity):
    """A phase of an attempt, or a replay of one (`replay` above 0); what is None was not recorded."""

    id: int
    attempt_id: int
    name: str
    replay: int
    outcome: str | None
    why: str
    started_at: datetime
    finished_at: datetime | None
    image: str | None
    image_digest: str | None
    isolation: str | None
    network: str | None
    reset_method: str | None
    reset_seconds: float | None
    tests_passed: int
    tests_failed: int
    tests_skipped: int
    tests_flaky: int


@dataclass(frozen=True)
class RecordedStep(Entity):
    """A step of a phase. `log_sha256` None: it printed nothing."""

    phase_id: int
    name: str
    outcome: str | None
    exit_status: int | None
    log_sha256: str | None


@dataclass(frozen=True)
class RecordedFile(Entity):
    """A file that an attempt made."""

    attempt_id: int
    file: str
    sha256: str
    kind: str


@dataclass(frozen=True)
class RecordedBuild:
    """An attempt of a build, and all that is recorded of it.

    `environment` are the packages that were installed when it had built, `installed` those when what it built had been
    installed: versions by name, as the guests reported them; empty where they did not.
    """

    id: int
    target: str
    number: int
    outcome: str
    started_at: datetime
    finished_at: datetime
    worker: str | None
    phases: tuple[RecordedPhase, ...]
    steps: Mapping[int, Sequence[RecordedStep]]
    files: tuple[RecordedFile, ...]
    environment: Mapping[str, str]
    installed: Mapping[str, str]


@dataclass(frozen=True)
class Signed(Entity):
    """What was signed of a published package."""

    sha256: str
    attempt_id: int
    statement_sha256: str
    bill_sha256: str
    signed_by: tuple[str, ...]
    signed_at: datetime


@dataclass(frozen=True)
class NewlySigned:
    """What is now signed of a package."""

    sha256: str
    attempt_id: int
    statement_sha256: str
    bill_sha256: str
    signed_by: tuple[str, ...]


def source(database: Database, release_id: int) -> Source:
    """What a release is of."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["release"], release=release_id)
    assert row is not None
    return Source.from_row(row)


def builds(database: Database, release_id: int) -> list[RecordedBuild]:
    """The attempts whose files a release publishes."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["attempts"], release=release_id)
        ids = [row["id"] for row in rows]
        phases = [RecordedPhase.from_row(row) for row in cursor.rows(_SQL["phases"], attempts=ids)]
        steps = [RecordedStep.from_row(row) for row in cursor.rows(_SQL["steps"], attempts=ids)]
        files = [RecordedFile.from_row(row) for row in cursor.rows(_SQL["artifacts"], attempts=ids)]
        packages = _packages(cursor, ids)
    return [_build(row, phases, steps, files, packages) for row in rows]


def published(database: Database, packages: Sequence[str]) -> set[str]:
    """Of some packages (their SHA-256 as published) those that were published before: what they have stays."""
    with database.transaction() as cursor:
        return {row["sha256"] for row in cursor.rows(_SQL["published"], packages=list(packages))}


def signed(database: Database, packages: Sequence[str], attempts: Sequence[int]) -> set[str]:
    """Of some packages those of which it is signed that one of these attempts made them."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["signed"], packages=list(packages), attempts=list(attempts))
    return {row["sha256"] for row in rows}


def record(database: Database, fresh: Iterable[NewlySigned]) -> None:
    """Note what was signed of packages, in the place of what was noted before."""
    rows = [
        (one.sha256, one.attempt_id, one.statement_sha256, one.bill_sha256, list(one.signed_by))
        for one in sorted(fresh, key=lambda one: one.sha256)
    ]
    with database.transaction() as cursor:
        cursor.insert_many(_SQL["record"], rows)


def of_generation(database: Database, number: int) -> dict[str, Signed]:
    """What was signed of the packages of a generation, by their SHA-256."""
    with database.transaction() as cursor:
        return {row["sha256"]: Signed.from_row(row) for row in cursor.rows(_SQL["of_generation"], number=number)}


def of_release(cursor: Cursor, release_id: int) -> list[Row]:
    """What was signed of the packages that a release published, with the package of each."""
    return cursor.rows(_SQL["of_release"], release=release_id)


def _packages(cursor: Cursor, attempts: Sequence[int]) -> dict[tuple[int, str], dict[str, str]]:
    rows = cursor.rows(_SQL["packages"], attempts=list(attempts), names=[BUILD, INSTALL])
    return {(row["attempt_id"], row["name"]): row["packages"] for row in rows}


def _build(
    row: Row,
    phases: Sequence[RecordedPhase],
    steps: Sequence[RecordedStep],
    files: Sequence[RecordedFile],
    packages: Mapping[tuple[int, str], Mapping[str, str]],
) -> RecordedBuild:
    own = tuple(phase for phase in phases if phase.attempt_id == row["id"])
    known: dict[str, Any] = {name: row[name] for name in ("id", "target", "number", "outcome", "worker")}
    return RecordedBuild(
        **known,
        started_at=row["started_at"] or row["queued_at"],
        finished_at=row["finished_at"],
        phases=own,
        steps={phase.id: [step for step in steps if step.phase_id == phase.id] for phase in own},
        files=tuple(file for file in files if file.attempt_id == row["id"]),
        environment=packages.get((row["id"], BUILD), {}),
        installed=packages.get((row["id"], INSTALL), {}),
    )

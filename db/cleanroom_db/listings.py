"""Lists as programs ask for them: in parts, each begun after a key, whatever is recorded meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cleanroom_base.errors import InputError
from cleanroom_db.connection import Database, plain
from cleanroom_db.products import Product
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import ReleaseState
from cleanroom_recipes.model import Outcome, RefKind

_SQL = load("listings")


@dataclass(frozen=True)
class Listed(Entity):
    """A release as one line. `finished_at` None: its builds go on."""

    id: int
    product: str
    ref: str
    commit: str
    version: str | None
    kind: RefKind
    channel: str
    state: ReleaseState
    why: str
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class Step(Entity):
    """A step of a phase. `outcome` None: it runs; `log_sha256` None: it printed nothing yet."""

    id: int
    phase_id: int
    name: str
    outcome: Outcome | None
    exit_status: int | None
    why: str
    started_at: datetime
    seconds: float | None
    log_sha256: str | None
    log_size: int
    log_truncated: bool


@dataclass(frozen=True)
class Phase(Entity):
    """A phase of an attempt, or a replay of it. `outcome` None: it runs."""

    id: int
    name: str
    replay: int
    outcome: Outcome | None
    why: str
    started_at: datetime
    finished_at: datetime | None
    image: str | None
    image_digest: str | None
    isolation: str | None
    network: str | None
    reset_method: str | None
    reset_seconds: float | None
    seconds: float | None
    command_seconds: float | None
    tests_passed: int
    tests_failed: int
    tests_skipped: int


@dataclass(frozen=True)
class Attempt(Entity):
    """An attempt of a build. One of `release_id` and `trial_id` is None."""

    id: int
    product: str
    ref: str
    release_id: int | None
    trial_id: int | None
    target: str
    number: int
    outcome: Outcome | None
    why: str
    worker: str | None
    isolation: str | None
    planned: list[str]
    queued_at: datetime
    not_before: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True)
class Case(Entity):
    """A test case of a phase. Numbers None: not said, or not repeated."""

    id: int
    step: str
    name: str
    outcome: Outcome
    seconds: float | None
    message: str
    line: int | None
    runs: int | None
    failures: int | None


@dataclass(frozen=True)
class Package(Entity):
    """A package in a channel. `product` and `ref` None: it came from elsewhere."""

    id: int
    channel: str
    target: str
    format: str
    name: str
    version: str
    architecture: str
    file: str
    sha256: str
    size: int
    added_in: int
    product: str | None
    ref: str | None


@dataclass(frozen=True)
class Change(Entity):
    """A state that a release came to."""

    id: int
    state: ReleaseState
    why: str
    at: datetime
    release_id: int
    product: str
    ref: str
    version: str | None
    channel: str


def products(database: Database, part: str | None, after: str, limit: int) -> list[Product]:
    """Watched products by name, those after one; `part`: of the name."""
    named = None if part is None else plain(part)
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["products"], part=named, after=plain(after), limit=limit)
    return [Product.from_row(row) for row in rows]


def releases(
    database: Database,
    *,
    product: str | None = None,
    ref: str | None = None,
    channel: str | None = None,
    state: ReleaseState | None = None,
    before: int | None = None,
    limit: int,
) -> list[Listed]:
    """Releases, newest first, those before one; None: all."""
    texts = {
        name: None if value is None else plain(value)
        for name, value in {"product": product, "ref": ref, "channel": channel}.items()
    }
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["releases"], **texts, state=state, before=before, limit=limit)
    return [Listed.from_row(row) for row in rows]


def name_of(database: Database, release_id: int) -> tuple[str, str]:
    """The product and the ref of a release. Raises InputError."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["name_of"], id=release_id)
    if row is None:
        raise InputError(f"there is no release {release_id}")
    return row["product"], row["ref"]


def attempt(database: Database, attempt_id: int) -> tuple[Attempt, list[tuple[Phase, list[Step]]]]:
    """An attempt with its phases and their steps. Raises InputError."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["attempt"], id=attempt_id)
        if row is None:
            raise InputError(f"there is no attempt {attempt_id}")
        phases = [Phase.from_row(one) for one in cursor.rows(_SQL["phases"], id=attempt_id)]
        steps: dict[int, list[Step]] = {}
        for one in cursor.rows(_SQL["steps"], id=attempt_id):
            steps.setdefault(one["phase_id"], []).append(Step.from_row(one))
    return Attempt.from_row(row), [(phase, steps.get(phase.id, [])) for phase in phases]


def cases(database: Database, phase_id: int, after: int, limit: int) -> list[Case]:
    """The test cases of a phase in the order of their recording, those after one. Raises InputError."""
    with database.transaction() as cursor:
        if cursor.value(_SQL["phase"], phase=phase_id) is None:
            raise InputError(f"there is no phase {phase_id}")
        rows = cursor.rows(_SQL["cases"], phase=phase_id, after=after, limit=limit)
    return [Case.from_row(row) for row in rows]


def packages(
    database: Database, number: int, *, channel: str | None, name: str | None, after: int, limit: int
) -> list[Package]:
    """The packages of a generation in the order in which they came, those after one."""
    texts = {key: None if text is None else plain(text) for key, text in (("channel", channel), ("name", name))}
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["packages"], number=number, after=after, limit=limit, **texts)
    return [Package.from_row(row) for row in rows]


def changes(database: Database, product: str, limit: int) -> list[Change]:
    """The latest states that a product's releases came to, newest first."""
    with database.transaction() as cursor:
        return [Change.from_row(row) for row in cursor.rows(_SQL["changes"], product=plain(product), limit=limit)]

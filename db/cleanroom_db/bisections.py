"""Bisections: what is searched, what may be the first bad one, and the trials that probe.

A bisection is worked on by whoever holds its row locked, so two masters do not begin the same probes. Locks are taken
in the order bisection, release, trial, attempt.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cleanroom_base.errors import InputError
from cleanroom_db import attempts, audit, trials
from cleanroom_db.connection import Cursor, Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import BisectionAxis, BisectionState, Verdict
from cleanroom_db.trials import NewTrial
from cleanroom_recipes.model import Outcome
from cleanroom_recipes.plan import EXACT

_SQL = load("bisections")

# The builds whose lists of packages are looked at, the newest.
_LISTS = 1000


@dataclass(frozen=True)
class Criterion:
    """By what a candidate is judged: a test case in a phase, a step of it, or the phase as a whole."""

    phase: str
    step: str | None = None
    test: str | None = None

    def __str__(self) -> str:
        return (
            f"{self.phase}: {self.test}" if self.test is not None else "/".join(filter(None, (self.phase, self.step)))
        )


@dataclass(frozen=True)
class NewCandidate:
    """What may be the first bad one. `parents` are the positions of those that it follows at once.

    `name` is a commit, the digest of an image or an attempt; `commit` is what is built, under `conditions`. One with
    a `problem` cannot be judged.
    """

    name: str
    commit: str
    parents: Sequence[int]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    author: str = ""
    dated_at: datetime | None = None
    subject: str = ""
    problem: str | None = None


@dataclass(frozen=True)
class NewBisection:
    """A bisection to be made: `good` and `bad` are the ends as they were asked for; the first candidate is the good
    one, the last one the bad one. A candidate is probed `runs` times, and bad if it fails once; at most `parallel`
    candidates are probed at once."""

    product: str
    target: str
    axis: BisectionAxis
    good: str
    bad: str
    channel: str
    criterion: Criterion
    candidates: Sequence[NewCandidate]
    requested_by: str
    runs: int = 1
    parallel: int = 1


@dataclass(frozen=True)
class Bisection(Entity):
    """One bisection. `suspects` are the positions of the candidates of which one is the first bad one."""

    id: int
    product: str
    target: str
    axis: BisectionAxis
    good: str
    bad: str
    channel: str
    phase: str
    step: str | None
    test: str | None
    runs: int
    parallel: int
    state: BisectionState
    why: str
    suspects: tuple[int, ...]
    requested_by: str
    created_at: datetime
    finished_at: datetime | None

    @property
    def criterion(self) -> Criterion:
        """By what a candidate is judged."""
        return Criterion(self.phase, self.step, self.test)


@dataclass(frozen=True)
class Candidate(Entity):
    """What may be the first bad one. `verdict` None: not known."""

    bisection_id: int
    position: int
    parents: tuple[int, ...]
    name: str
    commit: str
    conditions: Mapping[str, Any]
    author: str
    dated_at: datetime | None
    subject: str
    verdict: Verdict | None
    why: str
    judged_at: datetime | None


@dataclass(frozen=True)
class Probe(Entity):
    """A trial of a candidate; the last four are the trial's. `verdict` None: it was not looked at yet."""

    trial_id: int
    bisection_id: int
    position: int
    run: int
    lane: int
    verdict: Verdict | None
    created_at: datetime
    finished_at: datetime | None
    outcome: Outcome | None
    why: str


@dataclass(frozen=True)
class Seen(Entity):
    """What a trial says about what is looked for; None where it did not come so far.

    `packages_why`: why the packages could not be brought to the versions that they were to have; `image_digests`: the
    images from which its guests started.
    """

    attempt: int
    outcome: Outcome | None
    why: str
    phase_outcome: Outcome | None
    phase_why: str | None
    step_outcome: Outcome | None
    step_why: str | None
    case_outcome: Outcome | None
    case_message: str | None
    case_seconds: float | None
    case_line: int | None
    log_sha256: str | None
    packages_why: str | None
    image_digests: tuple[str, ...]


@dataclass(frozen=True)
class FailedBuild(Entity):
    """Where a build of a release fails first."""

    target: str
    phase: str
    step: str | None


@dataclass(frozen=True)
class UsedImage(Entity):
    """An image that builds ran with, and when first."""

    digest: str
    at: datetime


@dataclass(frozen=True)
class PackageState(Entity):
    """Which packages were installed when a phase of an attempt had ended; `release_id` None: it was a night's.

    `digest` names the set of packages.
    """

    digest: str
    attempt: int
    at: datetime
    release_id: int | None
    ref: str


@dataclass(frozen=True)
class PackageList(Entity):
    """The file with the packages that were installed in a build; `release_id` None: it was a trial's."""

    sha256: str
    size: int
    attempt: int
    at: datetime
    release_id: int | None
    ref: str


def request(database: Database, new: NewBisection) -> int:
    """Have a bisection made; returns its id. The master begins it."""
    with database.transaction() as cursor:
        bisection = int(
            cursor.value(
                _SQL["insert"],
                product=new.product,
                target=new.target,
                axis=new.axis,
                good=plain(new.good),
                bad=plain(new.bad),
                channel=new.channel,
                phase=new.criterion.phase,
                step=new.criterion.step,
                test=None if new.criterion.test is None else plain(new.criterion.test),
                runs=new.runs,
                parallel=new.parallel,
                requested_by=plain(new.requested_by),
            )
        )
        rows = [_values(bisection, position, one) for position, one in enumerate(new.candidates)]
        cursor.insert_many(_SQL["insert_candidates"], rows)
    return bisection


def _values(bisection: int, position: int, new: NewCandidate) -> tuple[object, ...]:
    return (
        bisection,
        position,
        list(new.parents),
        plain(new.name),
        new.commit,
        new.conditions,
        plain(new.author),
        new.dated_at,
        plain(new.subject),
        None if new.problem is None else Verdict.SKIPPED,
        plain(new.problem or ""),
    )


def get(database: Database, bisection_id: int) -> Bisection:
    """One bisection. Raises InputError."""
    with database.transaction() as cursor:
        return _bisection(cursor, "get", bisection_id)


def list_latest(database: Database, product: str | None = None, *, limit: int = 100) -> list[Bisection]:
    """The latest bisections, newest first."""
    with database.transaction() as cursor:
        return [Bisection.from_row(row) for row in cursor.rows(_SQL["list"], product=product, limit=limit)]


def candidates(database: Database, bisection_id: int) -> list[Candidate]:
    """What may be the first bad one, by position."""
    with database.transaction() as cursor:
        return [Candidate.from_row(row) for row in cursor.rows(_SQL["candidates"], id=bisection_id)]


def probes(database: Database, bisection_id: int) -> list[Probe]:
    """Its probes in the order in which they were begun."""
    with database.transaction() as cursor:
        return [Probe.from_row(row) for row in cursor.rows(_SQL["probes"], id=bisection_id)]


def to_advance(database: Database) -> list[int]:
    """The ids of those that go on and of which something is new."""
    with database.transaction() as cursor:
        return [row["id"] for row in cursor.rows(_SQL["to_advance"])]


def running(database: Database) -> list[int]:
    """The ids of those that go on."""
    with database.transaction() as cursor:
        return [row["id"] for row in cursor.rows(_SQL["running"])]


def lock(cursor: Cursor, bisection_id: int) -> Bisection:
    """The bisection, which nobody else changes until the transaction's end. Raises InputError."""
    return _bisection(cursor, "lock", bisection_id)


def seen(database: Database, trial_id: int, criterion: Criterion) -> Seen:
    """What a trial says about what is looked for."""
    with database.transaction() as cursor:
        row = cursor.row(
            _SQL["seen"], trial=trial_id, phase=criterion.phase, step=criterion.step, test=criterion.test, exact=EXACT
        )
    assert row is not None
    return Seen.from_row(row)


def begin(cursor: Cursor, bisection: Bisection, position: int, run: int, trial: NewTrial) -> int:
    """Begin a probe of a (locked) bisection: a trial, on the first lane of its target that is free."""
    rows = cursor.rows(_SQL["lanes_in_use"], product=bisection.product, target=bisection.target)
    taken = {row["lane"] for row in rows}
    lane = next(number for number in range(1, len(taken) + 2) if number not in taken)
    trial_id = trials.insert(cursor, trial)
    cursor.execute(_SQL["insert_probe"], trial=trial_id, id=bisection.id, position=position, run=run, lane=lane)
    return trial_id


def judge_probe(cursor: Cursor, trial_id: int, verdict: Verdict) -> None:
    """Note what a probe says."""
    cursor.execute(_SQL["judge_probe"], trial=trial_id, verdict=verdict)


def judge_candidate(cursor: Cursor, bisection_id: int, position: int, verdict: Verdict, why: str) -> None:
    """Note what is known of a candidate."""
    cursor.execute(_SQL["judge_candidate"], id=bisection_id, position=position, verdict=verdict, why=plain(why))


def note(cursor: Cursor, bisection_id: int, suspects: Sequence[int], why: str) -> None:
    """Note how far a bisection is."""
    cursor.execute(_SQL["set_suspects"], id=bisection_id, suspects=tuple(suspects), why=plain(why))


def finish(cursor: Cursor, bisection_id: int, state: BisectionState, why: str, suspects: Collection[int] = ()) -> None:
    """End a (locked) bisection."""
    cursor.execute(_SQL["finish"], id=bisection_id, state=state, why=plain(why), suspects=tuple(suspects))


def cancel(database: Database, bisection_id: int, actor: str, reason: str) -> Bisection:
    """End a bisection and its probes. Raises InputError if it has ended."""
    with database.transaction() as cursor:
        bisection = lock(cursor, bisection_id)
        if bisection.state is not BisectionState.RUNNING:
            raise InputError(f"bisection {bisection_id} has ended: it is {bisection.state}")
        for probe in probes(database, bisection_id):
            if probe.finished_at is None:
                attempts.cancel_trial(database, probe.trial_id, f"bisection {bisection_id} was cancelled")
        finish(cursor, bisection_id, BisectionState.CANCELLED, f"{actor}: {reason}", bisection.suspects)
        audit.record(database, actor, "bisection cancel", f"{bisection.product} {bisection_id}", reason=reason)
        return lock(cursor, bisection_id)


def lanes(database: Database) -> list[tuple[str, str, int]]:
    """Every product with every target for which there were probes, and how many ran at once."""
    with database.transaction() as cursor:
        return [(row["product"], row["target"], row["lanes"]) for row in cursor.rows(_SQL["lanes"])]


def lane(database: Database, trial_id: int) -> int:
    """The lane of a probe's trial; 0 for any other trial."""
    with database.transaction() as cursor:
        return int(cursor.value(_SQL["lane"], trial=trial_id) or 0)


def failed_builds(database: Database, release_id: int) -> list[FailedBuild]:
    """Where the builds of a release fail, one a build that does."""
    with database.transaction() as cursor:
        return [FailedBuild.from_row(row) for row in cursor.rows(_SQL["failed_builds"], release=release_id)]


def used_images(database: Database, image: str, release_id: int | None = None) -> list[UsedImage]:
    """The images of this name that builds ran with (those of one release), by the time of their first use."""
    with database.transaction() as cursor:
        return [UsedImage.from_row(row) for row in cursor.rows(_SQL["used_images"], image=image, release=release_id)]


def package_lists(database: Database, product: str, target: str) -> list[PackageList]:
    """The lists of the packages in a product's latest builds for a target, oldest first."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["package_lists"], product=product, target=target, limit=_LISTS)
    return [PackageList.from_row(row) for row in reversed(rows)]


def package_states(database: Database, product: str, target: str, phase: str) -> list[PackageState]:
    """The states in which a product's latest runs of a phase for a target ended, nights' too, oldest first."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["package_states"], product=product, target=target, phase=phase, limit=_LISTS)
    return [PackageState.from_row(row) for row in reversed(rows)]


def packages_of(database: Database, digest: str) -> Mapping[str, str]:
    """The packages of a state: versions by name; of rpm packages by `rpm:` and the name."""
    with database.transaction() as cursor:
        found: Mapping[str, str] = cursor.value(_SQL["packages_of"], digest=digest)
    return found


def own_packages(database: Database, product: str) -> set[str]:
    """The names of all packages that releases of a product made."""
    with database.transaction() as cursor:
        return {row["package"] for row in cursor.rows(_SQL["own_packages"], product=product)}


def _bisection(cursor: Cursor, how: str, bisection_id: int) -> Bisection:
    row = cursor.row(_SQL[how], id=bisection_id)
    if row is None:
        raise InputError(f"there is no bisection {bisection_id}", hint="'cleanroom bisection list' shows them")
    return Bisection.from_row(row)

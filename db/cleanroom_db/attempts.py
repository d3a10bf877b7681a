"""Attempts: a build's tries, each worked on under a lease.

Whoever works on an attempt holds its lease; every write about it names the owner and fails with LeaseLost once
the lease has gone, so a worker that was thought dead cannot write into a later truth. What infrastructure
spoiled is tried again by itself, what the product spoiled is not. A guest that went off may have been either: the
second time that it does so in the same phase of a build, it was the product.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.settings import Settings
from cleanroom_db import comparisons, releases, reproductions, trials
from cleanroom_db.connection import Cursor, Database, Row, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_recipes.model import Outcome

_SQL = load("attempts")


class LeaseLost(InfrastructureError):
    """The attempt is not ours any more: its lease ran out or it is finished."""


@dataclass(frozen=True)
class Lease:
    """The right to write about an attempt."""

    attempt_id: int
    owner: str


@dataclass(frozen=True)
class Attempt(Entity):
    """One try of a build. `outcome` None: not finished; `lease_owner` None: nobody works on it."""

    id: int
    build_id: int
    number: int
    series_start: int
    outcome: Outcome | None
    why: str
    lease_owner: str | None
    lease_expires_at: datetime | None
    not_before: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    isolation: str | None
    buildbot_url: str | None
    priority: int


@dataclass(frozen=True)
class Work(Attempt):
    """An attempt with what is needed to start it; it is of a release or of a trial."""

    release_id: int | None
    trial_id: int | None
    target: str
    phases: tuple[str, ...]


@dataclass(frozen=True)
class RetryPolicy:
    """How often infrastructure may spoil a build (`limit` attempts), and the pause in seconds, which doubles."""

    limit: int = 3
    pause: float = 20.0

    @classmethod
    def of(cls, settings: Settings) -> RetryPolicy:
        """The site's policy."""
        return cls(settings.whole("master.attempts"), settings.number("master.retry_pause"))


def due(database: Database, *, limit: int = 100, trials: int | None = None) -> list[Work]:
    """Attempts that nobody works on and whose time has come: by priority, then the longest due first.

    Of trials only so many that at most `trials` attempts are worked on at once (None: all). A release that waits for
    others is not due.
    """
    with database.transaction() as cursor:
        return [Work.from_row(row) for row in cursor.rows(_SQL["due"], limit=limit, trials=trials)]


def get(database: Database, attempt_id: int) -> Work:
    """One attempt. Raises InputError."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["work"], id=attempt_id)
    if row is None:
        raise InputError(f"there is no attempt {attempt_id}")
    return Work.from_row(row)


def lease(database: Database, attempt_id: int, owner: str, seconds: float) -> bool:
    """Begin to work on an attempt; False if somebody else does, if it is not due, or if it is finished."""
    with database.transaction() as cursor:
        whose = _lock(cursor, attempt_id)
        if cursor.execute(_SQL["lease"], id=attempt_id, owner=owner, seconds=seconds) == 0:
            return False
        if whose.trial is None and whose.release is not None:
            releases.set_building(cursor, whose.release)
        return True


def renew(database: Database, attempt_id: int, owner: str, seconds: float) -> bool:
    """Keep the lease for `seconds` from now; False if it is lost."""
    with database.transaction() as cursor:
        return cursor.execute(_SQL["renew"], id=attempt_id, owner=owner, seconds=seconds) == 1


def describe(
    database: Database,
    held: Lease,
    *,
    worker: str | None = None,
    isolation: str | None = None,
    buildbot_url: str | None = None,
) -> None:
    """Note where an attempt runs; None leaves a value. Raises LeaseLost."""
    with database.transaction() as cursor:
        touched = cursor.execute(
            _SQL["describe"],
            id=held.attempt_id,
            owner=held.owner,
            worker=worker,
            isolation=isolation,
            buildbot_url=buildbot_url,
        )
    require(held, touched)


def finish(
    database: Database, attempt_id: int, owner: str | None, outcome: Outcome, why: str, policy: RetryPolicy
) -> None:
    """End an attempt, queue the next one if infrastructure spoiled it, and judge its release.

    `owner` None ends an attempt that nobody works on. Raises LeaseLost.
    """
    with database.transaction() as cursor:
        if not _finish(cursor, attempt_id, owner, outcome, why, policy, expired=False):
            raise LeaseLost(f"attempt {attempt_id} is not held by {owner} any more")


def expire(database: Database, policy: RetryPolicy) -> list[int]:
    """End, as infrastructure's fault, all attempts whose lease ran out; return their ids."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["expired"])
    return [row["id"] for row in rows if _end_lost(database, row, "its worker fell silent", policy, expired=True)]


def abandon(database: Database, owner_prefix: str, why: str, policy: RetryPolicy) -> list[int]:
    """End, as infrastructure's fault, all attempts of owners whose name begins so; return their ids.

    For a process that starts again and knows that its earlier self works on nothing any more.
    """
    prefix = owner_prefix.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["leased_by"], prefix=f"{prefix}%")
    return [row["id"] for row in rows if _end_lost(database, row, why, policy, expired=False)]


def cancel(database: Database, release_id: int, why: str) -> list[int]:
    """End all unfinished attempts of a release as cancelled, whoever works on them; return their ids."""
    with database.transaction() as cursor:
        releases.lock(cursor, release_id)
        rows = cursor.rows(_SQL["open_of_release"], release=release_id)
        for row in rows:
            _finish(cursor, row["id"], row["lease_owner"], Outcome.CANCELLED, why, RetryPolicy(), expired=False)
    return [row["id"] for row in rows]


def cancel_trial(database: Database, trial_id: int, why: str) -> list[int]:
    """End all unfinished attempts of a trial as cancelled, whoever works on them; return their ids."""
    with database.transaction() as cursor:
        for row in cursor.rows(_SQL["open_of_trial"], trial=trial_id)[:1]:
            _lock(cursor, row["id"])
        # Once the trial is locked, nobody begins to work on one of them.
        rows = cursor.rows(_SQL["open_of_trial"], trial=trial_id)
        for row in rows:
            _finish(cursor, row["id"], row["lease_owner"], Outcome.CANCELLED, why, RetryPolicy(), expired=False)
    return [row["id"] for row in rows]


def require(held: Lease, touched: int) -> None:
    """Raise LeaseLost if a write under a lease touched nothing."""
    if touched == 0:
        raise LeaseLost(f"attempt {held.attempt_id} is not held by {held.owner} any more")


def _end_lost(database: Database, row: Row, why: str, policy: RetryPolicy, *, expired: bool) -> bool:
    with database.transaction() as cursor:
        return _finish(cursor, row["id"], row["lease_owner"], Outcome.INFRASTRUCTURE, why, policy, expired=expired)


def _finish(
    cursor: Cursor,
    attempt_id: int,
    owner: str | None,
    outcome: Outcome,
    why: str,
    policy: RetryPolicy,
    *,
    expired: bool,
) -> bool:
    """The one place where an attempt ends; False if it is not the owner's (or, with `expired`, not silent)."""
    whose = _lock(cursor, attempt_id)
    switched_off = _switched_off_again(cursor, attempt_id) if outcome is Outcome.INFRASTRUCTURE else None
    if switched_off is not None:
        outcome, why = Outcome.FAILED, switched_off
    row = cursor.row(_SQL["finish"], id=attempt_id, owner=owner, outcome=outcome, why=plain(why), expired=expired)
    if row is None:
        return False
    if switched_off is not None:
        for block in ("blame_steps", "blame_phases"):
            cursor.execute(_SQL[block], id=attempt_id)
    cursor.execute(_SQL["close_steps"], id=attempt_id, outcome=outcome, why="its attempt ended")
    cursor.execute(_SQL["close_phases"], id=attempt_id, outcome=outcome, why="its attempt ended")
    if whose.trial is None and outcome not in (Outcome.INFRASTRUCTURE, Outcome.CANCELLED):
        comparisons.record(cursor, attempt_id)
    attempt = Attempt.from_row(row)
    spoiled = attempt.number - attempt.series_start + 1
    if outcome is Outcome.INFRASTRUCTURE and spoiled < policy.limit:
        cursor.execute(
            _SQL["insert_next"],
            build=attempt.build_id,
            number=attempt.number + 1,
            series_start=attempt.series_start,
            priority=attempt.priority,
            pause=policy.pause * 2 ** (spoiled - 1),
        )
    else:
        _judge(cursor, whose)
    return True


def _switched_off_again(cursor: Cursor, attempt_id: int) -> str | None:
    """Why it is the product's failure that an attempt's guest went off, if an earlier one's did in the same phase."""
    row = cursor.row(_SQL["went_off_before"], id=attempt_id)
    if row is None:
        return None
    return f"{row['phase']}: the guest went off, as it did in attempt {row['number']}: the product switches it off"


@dataclass(frozen=True)
class _Whose:
    """What an attempt is of, locked: a release; or a trial, and the release that waits for it if one does."""

    release: releases.Release | None
    trial: trials.Trial | None


def _lock(cursor: Cursor, attempt_id: int) -> _Whose:
    row = cursor.row(_SQL["whose"], id=attempt_id)
    if row is None:
        raise InputError(f"there is no attempt {attempt_id}")
    release = row["release_id"] or row["subject"]
    return _Whose(
        None if release is None else releases.lock(cursor, release),
        None if row["trial_id"] is None else trials.lock(cursor, row["trial_id"]),
    )


def _judge(cursor: Cursor, whose: _Whose) -> None:
    """The verdict on what an attempt was of, now that it has ended."""
    if whose.trial is None:
        assert whose.release is not None
        releases.judge(cursor, whose.release)
    elif trials.judge(cursor, whose.trial):
        reproductions.record(cursor, whose.trial)
        if whose.release is not None:
            releases.judge_again(cursor, whose.release)

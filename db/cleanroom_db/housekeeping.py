"""What is kept no more: of files, which ones no row needs; of rows, those that have had their time.

Rows that say what happened stay. What goes is bytes (logs, artifacts), messages that were settled, refs that became no
release, and Buildbot's own state, which is not the record. Whatever is removed here is removed in small transactions,
each complete, so a process that does it may be killed at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cleanroom_db.connection import Cursor, Database
from cleanroom_db.sql import load

_SQL = load("housekeeping")
# So many rows go in one transaction: none holds its locks for long.
_BATCH = 500


@dataclass(frozen=True)
class Horizon:
    """What files are needed for: attempts that ended less than `age` seconds ago, and the last `generations`.

    Besides that, always: what is under way, held, or published now.
    """

    age: float
    generations: int


def unneeded_logs(database: Database, digests: Sequence[str], horizon: Horizon) -> set[str]:
    """Those of some logs that no step needs any more."""
    return _unneeded(database, "unneeded_logs", digests, horizon)


def unneeded_artifacts(database: Database, digests: Sequence[str], horizon: Horizon) -> set[str]:
    """Those of some files that no artifact, and nothing that is published, needs any more."""
    return _unneeded(database, "unneeded_artifacts", digests, horizon)


def _unneeded(database: Database, block: str, digests: Sequence[str], horizon: Horizon) -> set[str]:
    with database.transaction() as cursor:
        oldest = cursor.value(_SQL["oldest_generation"], keep=horizon.generations)
        rows = cursor.rows(_SQL[block], digests=tuple(digests), age=horizon.age, oldest=oldest)
    return {row["digest"] for row in rows}


def note_logs(database: Database, digests: Sequence[str], horizon: Horizon) -> None:
    """Say of all steps with these logs that they are kept no more."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["note_logs"], digests=tuple(digests), age=horizon.age)


def note_artifacts(database: Database, digests: Sequence[str], horizon: Horizon) -> None:
    """Say of all artifacts with this content that it is kept no more."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["note_artifacts"], digests=tuple(digests), age=horizon.age)


def events(database: Database, age: float, *, remove: bool) -> int:
    """Events of tags that became no release and are not the last of their tag; how many there are, or were."""
    return _gone(database, "events", age, remove=remove)


def notifications(database: Database, age: float, *, remove: bool) -> int:
    """Messages that were settled, and the changes that were told; how many there are, or were."""
    return _gone(database, "notifications", age, remove=remove) + _gone(database, "changes", age, remove=remove)


def buildbot(database: Database, age: float, *, remove: bool) -> int:
    """What Buildbot keeps of builds that ended, but for the last one of each builder; how many were asked for.

    Buildbot's tables cascade from its buildsets: requests, builds, steps and logs go with them.
    """
    with database.transaction() as cursor:
        if not cursor.value(_SQL["buildbot_there"]):
            return 0
    found = _gone(database, "buildbot", age, remove=remove)
    if remove:
        # The sources that they were of, which some of them share.
        _gone(database, "sources", age, remove=True)
    return found


def expired_sessions(database: Database, *, idle: float, age: float) -> int:
    """Sessions that are over and not yet forgotten; the next sign-in forgets them."""
    with database.transaction() as cursor:
        return int(cursor.value(_SQL["count_sessions"], idle=idle, age=age))


def _gone(database: Database, what: str, age: float, *, remove: bool) -> int:
    if not remove:
        with database.transaction() as cursor:
            return int(cursor.value(_SQL[f"count_{what}"], age=age))
    return _in_batches(database, lambda cursor: cursor.execute(_SQL[f"remove_{what}"], age=age, limit=_BATCH))


def _in_batches(database: Database, remove: Callable[[Cursor], int]) -> int:
    total, last = 0, _BATCH
    while last == _BATCH:
        with database.transaction() as cursor:
            last = remove(cursor)
        total += last
    return total

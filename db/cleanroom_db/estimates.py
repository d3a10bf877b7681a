"""When what is under way will have ended, by how long the like of it took: the best guess that the record allows.

What runs takes what it usually takes; what waits begins, in its order, where a place for a guest becomes free.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cleanroom_db.connection import Database
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load

_SQL = load("estimates")

# A median of so many earlier builds, looked for in so many releases or trials; so many attempts are looked at.
_RUNS = 10
_LOOKED_AT = 40
_ATTEMPTS = 500

# A release or a trial, by its id.
Key = tuple[str, int]


@dataclass(frozen=True)
class Open(Entity):
    """An attempt that is not at its end. `seconds` None: it waits; `usual_seconds` None: nothing like it passed yet."""

    kind: str
    id: int
    seconds: float | None
    usual_seconds: float | None


def left(database: Database) -> Mapping[Key, float]:
    """In how many seconds releases and trials will have been built; those of which nothing is known are not there."""
    with database.transaction() as cursor:
        found = cursor.rows(_SQL["open"], runs=_RUNS, looked_at=_LOOKED_AT, limit=_ATTEMPTS)
        places = cursor.value(_SQL["places"])
    return predicted([Open.from_row(row) for row in found], places)


def predicted(attempts: Iterable[Open], places: int) -> dict[Key, float]:
    """The same for attempts in the order in which they are worked on, so many of them at a time.

    Of what runs longer than usual it is said that it ends now. An attempt of which nothing is known takes what the
    others take on average, but of its own release nothing is said.
    """
    attempts = list(attempts)
    known = [one.usual_seconds for one in attempts if one.usual_seconds is not None]
    average = sum(known) / len(known) if known else 0.0
    ends: dict[Key, float | None] = {}
    running = [one for one in attempts if one.seconds is not None]
    # When each place becomes free: at least those of what runs now.
    free = [_rest(one, average) for one in running]
    free += [0.0] * (max(places, 1) - len(free))
    heapq.heapify(free)
    for one in running:
        _note(ends, one, _rest(one, average))
    for one in attempts:
        if one.seconds is None:
            end = heapq.heappop(free) + _rest(one, average)
            heapq.heappush(free, end)
            _note(ends, one, end)
    return {key: end for key, end in ends.items() if end is not None}


def _rest(one: Open, average: float) -> float:
    usual = average if one.usual_seconds is None else one.usual_seconds
    return max(usual - (one.seconds or 0.0), 0.0)


def _note(ends: dict[Key, float | None], one: Open, end: float) -> None:
    """A release has been built once all of its builds have ended; None: of one of them nothing is known."""
    key = (one.kind, one.id)
    before = ends.get(key, 0.0)
    ends[key] = None if before is None or one.usual_seconds is None else max(before, end)

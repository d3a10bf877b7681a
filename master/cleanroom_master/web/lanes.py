"""Where the parts of a way lie on a common scale of time, for the bars beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cleanroom_db.way import Station

# The scale's length in the units of the drawing.
LENGTH = 1000.0
# What is shorter could not be seen.
_LEAST = 3.0
# Waiting takes at most this share beside what ran; a longer wait begins outside of the drawing.
_WAITING = 0.25


@dataclass(frozen=True)
class Bar:
    """Begin and length of one part, and how much of its length was the reset of a guest."""

    begin: float
    length: float
    reset: float


def draw(stations: Sequence[Station], now: datetime | None = None) -> dict[Station, Bar]:
    """The bars of the parts that have begun and belong to a target."""
    now = now or datetime.now(UTC)
    spans = {one: _span(one, now) for one in stations if one.target and one.start is not None}
    if not spans:
        return {}
    ran = [span for one, span in spans.items() if one.reset_seconds is not None] or list(spans.values())
    last = max(end for _, end in spans.values())
    first_run = min(begin for begin, _ in ran)
    first = max(min(begin for begin, _ in spans.values()), first_run - (last - first_run) * _WAITING)
    whole = max((last - first).total_seconds(), 0.001)

    def place(time: datetime) -> float:
        return min(max((time - first).total_seconds() / whole, 0.0), 1.0) * LENGTH

    bars = {}
    for one, (begin, end) in spans.items():
        length = max(place(end) - place(begin), _LEAST)
        reset = min((one.reset_seconds or 0.0) / whole * LENGTH, length)
        bars[one] = Bar(round(min(place(begin), LENGTH - length), 1), round(length, 1), round(reset, 1))
    return bars


def _span(one: Station, now: datetime) -> tuple[datetime, datetime]:
    begin = datetime.fromisoformat(one.start or "")
    end = now if one.seconds is None else begin + timedelta(seconds=one.seconds)
    return begin, max(begin, end)

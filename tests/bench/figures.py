"""What many measurements come to: percentiles and ratios. Pure, so that a test can check it."""

from __future__ import annotations

from collections.abc import Sequence

Row = dict[str, object]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, between two of them in proportion.

    Raises ValueError when there are no values.
    """
    if not values:
        raise ValueError("there are no values")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summary(values: Sequence[float], digits: int = 3) -> Row:
    """How many values there are, the middle one, the 95th percentile, the least and the most."""
    return {
        "n": len(values),
        "p50": round(percentile(values, 0.5), digits),
        "p95": round(percentile(values, 0.95), digits),
        "least": round(min(values), digits),
        "most": round(max(values), digits),
    }


def ratio(ours: float, peer: float) -> float | None:
    """How many times the peer's figure is ours; None where ours is nothing."""
    return round(peer / ours, 2) if ours > 0 else None

"""Plots as SVG, made here: dots over time, and a distribution. The numbers stand beside them, for everybody."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# The drawing's size in its own units; the style sheet stretches it.
WIDTH, HEIGHT = 600, 120
_CLASSES = 24


@dataclass(frozen=True)
class Numbers:
    """What a plot says, in numbers. All None where there is nothing."""

    count: int
    last: float | None
    median: float | None
    high: float | None  # 95 of 100 are at most this
    most: float | None


@dataclass(frozen=True)
class Dots:
    """Values in their order: `path` draws a dot for each, `line` the median's height."""

    path: str
    line: float
    numbers: Numbers


@dataclass(frozen=True)
class Distribution:
    """How many values are how large: `bars` are place, width and height; the scale is logarithmic."""

    bars: tuple[tuple[float, float, float], ...]
    least: float
    numbers: Numbers


def numbers(values: Sequence[float]) -> Numbers:
    """A summary of values in their order."""
    if not values:
        return Numbers(0, None, None, None, None)
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)]
    return Numbers(len(values), values[-1], statistics.median(values), high, ordered[-1])


def dots(values: Sequence[float | None], *, most: float | None = None) -> Dots:
    """Values in their order, from 0 to `most` (None: the largest); None: a gap."""
    present = [value for value in values if value is not None]
    found = numbers(present)
    top = most or found.most or 1.0
    step = WIDTH / max(len(values), 1)
    path = "".join(
        f"M{(index + 0.5) * step:.1f} {_height(value, top):.1f}h0"
        for index, value in enumerate(values)
        if value is not None
    )
    return Dots(path, round(_height(found.median or 0.0, top), 1), found)


def distribution(values: Sequence[float]) -> Distribution:
    """How many values lie in each of some classes, from the least to the largest."""
    found = numbers(values)
    if not values:
        return Distribution((), 0.0, found)
    least, most = max(min(values), 1e-3), max([*values, 2e-3])
    low, span = math.log(least), max(math.log(most) - math.log(least), 1e-9)
    counts = [0] * _CLASSES
    for value in values:
        counts[min(int((math.log(max(value, least)) - low) / span * _CLASSES), _CLASSES - 1)] += 1
    width, top = WIDTH / _CLASSES, max(counts)
    bars = tuple(
        (round(index * width, 1), round(width - 1, 1), round(count / top * (HEIGHT - 4), 1))
        for index, count in enumerate(counts)
        if count
    )
    return Distribution(bars, least, found)


def _height(value: float, top: float) -> float:
    """Where a value is drawn: large ones are high up, and nothing touches the edge."""
    return HEIGHT - 4 - min(value / top, 1.0) * (HEIGHT - 8)

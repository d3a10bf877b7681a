"""When a test counts as slower: a robust rule, and pure.

Times of tests have outliers, so the middle of the earlier runs and the middle distance from it (the median absolute
deviation) are looked at, which one slow run does not move. Source of the factor that makes the latter comparable
with a standard deviation: Rousseeuw and Croux, "Alternatives to the Median Absolute Deviation" (1993), 1.4826.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

# The earlier runs that are looked at, and the fewest of which anything can be said.
RUNS = 10
LEAST_RUNS = 3
# A test is slower when it takes all of these longer than the middle of its earlier runs: seconds, a share of that
# middle, and so many (robust) standard deviations.
FLOOR_SECONDS = 0.5
FLOOR_SHARE = 0.5
DEVIATIONS = 5.0
_CONSISTENCY = 1.4826


def limit(earlier: Sequence[float]) -> float | None:
    """The seconds above which a run is slower than the earlier ones (newest first); None: they are too few."""
    runs = earlier[:RUNS]
    if len(runs) < LEAST_RUNS:
        return None
    middle = statistics.median(runs)
    deviation = _CONSISTENCY * statistics.median(abs(seconds - middle) for seconds in runs)
    return middle + max(FLOOR_SECONDS, FLOOR_SHARE * middle, DEVIATIONS * deviation)


def is_slower(earlier: Sequence[float], seconds: float) -> bool:
    """Whether a run of `seconds` is slower than the earlier ones (newest first)."""
    most = limit(earlier)
    return most is not None and seconds > most

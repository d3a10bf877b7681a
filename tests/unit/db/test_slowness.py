"""When a test counts as slower."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom_db.slowness import FLOOR_SECONDS, FLOOR_SHARE, LEAST_RUNS, RUNS, is_slower, limit

SECONDS = st.floats(0, 10_000)


@pytest.mark.parametrize(
    ("earlier", "seconds", "slower"),
    [
        ([1.0, 1.0], 100.0, False),  # two runs say nothing
        ([1.0, 1.0, 1.0], 1.4, False),  # below half a second more
        ([1.0, 1.0, 1.0], 1.6, True),
        ([0.001] * 10, 0.4, False),  # 400 times as long, and nobody waits for it
        ([100.0] * 10, 140.0, False),  # 40 s more are no half
        ([100.0] * 10, 151.0, True),
        ([2.0, 2.1, 60.0, 1.9], 4.0, True),  # an outlier moves nothing
        ([2.0, 6.0, 4.0, 8.0, 5.0], 12.0, False),  # it varies anyway
        ([1.0] * 10 + [50.0] * 100, 2.0, True),  # what is long ago does not count
    ],
)
def test_the_rule(earlier: list[float], seconds: float, slower: bool) -> None:
    assert is_slower(earlier, seconds) is slower


@given(st.lists(SECONDS, min_size=LEAST_RUNS, max_size=RUNS))
def test_what_is_not_above_every_earlier_run_by_the_floor_is_not_slower(earlier: list[float]) -> None:
    most = limit(earlier)
    assert most is not None
    middle = sorted(earlier)[len(earlier) // 2]
    assert not is_slower(earlier, min(earlier))
    assert most >= min(middle, sorted(earlier)[(len(earlier) - 1) // 2]) * (1 + FLOOR_SHARE)
    assert most >= FLOOR_SECONDS


@given(st.lists(SECONDS, min_size=5, max_size=RUNS), SECONDS)
def test_one_wild_run_never_makes_the_others_slow(earlier: list[float], wild: float) -> None:
    """Replacing one run moves the middle at most to its neighbours."""
    calm = [1.0] * len(earlier)
    assert limit([*calm[:-1], wild]) == limit(calm)


@given(st.lists(SECONDS, max_size=RUNS), SECONDS, SECONDS)
def test_a_longer_run_is_slower_if_a_shorter_one_is(earlier: list[float], one: float, other: float) -> None:
    short, long = sorted((one, other))
    assert not is_slower(earlier, short) or is_slower(earlier, long)

"""Plots say what their numbers say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cleanroom_master.web import plots

VALUES = st.lists(st.floats(0, 1e6), max_size=60)


def test_dots_are_as_high_as_their_values() -> None:
    drawn = plots.dots([0.0, None, 10.0])
    assert drawn.path == f"M100.0 {plots.HEIGHT - 4.0}h0M500.0 4.0h0"
    assert (drawn.numbers.count, drawn.numbers.last, drawn.numbers.median, drawn.numbers.most) == (2, 10.0, 5.0, 10.0)


def test_95_of_100_are_at_most_as_large_as_is_said() -> None:
    assert plots.numbers([float(value) for value in range(1, 101)]).high == 95.0


@given(VALUES)
def test_a_distribution_has_every_value_and_fits(values: list[float]) -> None:
    drawn = plots.distribution(values)
    assert drawn.numbers.count == len(values)
    assert bool(drawn.bars) == bool(values)
    for begin, width, height in drawn.bars:
        assert begin >= 0
        assert begin + width <= plots.WIDTH
        assert 0 < height <= plots.HEIGHT


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e6)), max_size=60))
def test_dots_stay_within_the_drawing(values: list[float | None]) -> None:
    for dot in plots.dots(values).path.split("M")[1:]:
        x, y = dot.removesuffix("h0").split(" ")
        assert 0 <= float(x) <= plots.WIDTH
        assert 0 < float(y) < plots.HEIGHT

"""The choice of what a bisection probes: any place, any skips, any number at once, and graphs with merges."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom_db.states import Verdict
from cleanroom_master.bisection.search import Decision, Search

Judge = Callable[[int], Verdict]


def line(count: int) -> Search:
    """A good end, and `count` candidates after it, one behind the other."""
    return Search([[], *([position] for position in range(count))])


def rounds(search: Search, judge: Judge, parallel: int) -> tuple[Decision, int, dict[int, Verdict]]:
    """Search to the end, all probes of a round ending together; the ends are known."""
    verdicts = {0: Verdict.GOOD, search.bad_end: Verdict.BAD}
    number = 0
    while not (decision := search.decide(verdicts, (), parallel)).ended:
        assert 0 < len(decision.probe) <= parallel
        assert len(set(decision.probe)) == len(decision.probe)
        assert not set(decision.probe) & set(verdicts)
        assert set(decision.probe) <= set(decision.suspects)
        verdicts |= {one: judge(one) for one in decision.probe}
        number += 1
    return decision, number, verdicts


def broken_since(first_bad: int) -> Judge:
    return lambda one: Verdict.BAD if one >= first_bad else Verdict.GOOD


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))), st.integers(1, 8))
def test_any_place_is_found_within_the_bound(place: tuple[int, int], parallel: int) -> None:
    count, first_bad = place
    decision, number, _ = rounds(line(count), broken_since(first_bad), parallel)
    assert decision.suspects == (first_bad,)
    assert number <= math.ceil(math.log(count, parallel + 1) - 1e-9)


@given(st.data())
def test_whatever_cannot_be_judged_the_first_bad_one_is_among_the_suspects(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 60))
    first_bad = data.draw(st.integers(1, count))
    skipped = data.draw(st.sets(st.integers(1, count - 1))) if count > 1 else set()
    broken = broken_since(first_bad)
    decision, _, verdicts = rounds(
        line(count), lambda one: Verdict.SKIPPED if one in skipped else broken(one), data.draw(st.integers(1, 5))
    )
    assert first_bad in decision.suspects
    # All but the last are those that could not be judged, and nothing else stands between them.
    assert all(verdicts[one] is Verdict.SKIPPED for one in decision.suspects[:-1])
    assert decision.suspects == tuple(range(decision.suspects[0], decision.suspects[-1] + 1))


def test_a_long_run_that_cannot_be_judged_is_jumped_over() -> None:
    decision, number, _ = rounds(
        line(1000), lambda one: Verdict.SKIPPED if 100 <= one <= 900 else broken_since(950)(one), 1
    )
    assert decision.suspects == (950,)
    # Looking at the neighbours alone would take more than 400.
    assert number < 50


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    """Histories: each commit follows one or two earlier ones, and the last one follows all."""
    count = draw(st.integers(2, 40))
    parents: list[list[int]] = [[]]
    for position in range(1, count):
        parents.append(sorted(draw(st.sets(st.integers(max(0, position - 6), position - 1), min_size=1, max_size=2))))
    followed = {one for before in parents for one in before}
    parents.append([one for one in range(count) if one not in followed])
    return parents


def descendants(parents: list[list[int]], first: int) -> set[int]:
    found = {first}
    for position, before in enumerate(parents):
        if found & set(before):
            found.add(position)
    return found


@given(graphs(), st.data())
def test_the_first_bad_commit_of_a_history_with_merges_is_found(parents: list[list[int]], data: st.DataObject) -> None:
    first_bad = data.draw(st.integers(1, len(parents) - 1))
    broken = descendants(parents, first_bad)
    decision, _, _ = rounds(
        Search(parents), lambda one: Verdict.BAD if one in broken else Verdict.GOOD, data.draw(st.integers(1, 4))
    )
    assert decision.suspects == (first_bad,)


@given(graphs(), st.data())
def test_probes_may_end_in_any_order(parents: list[list[int]], data: st.DataObject) -> None:
    """As on a farm: whatever ends first is looked at first, and what became needless is ended."""
    search, parallel = Search(parents), data.draw(st.integers(1, 4))
    first_bad = data.draw(st.integers(1, search.bad_end))
    broken = descendants(parents, first_bad)
    verdicts: dict[int, Verdict] = {}
    running: list[int] = []
    while not (decision := search.decide(verdicts, running, parallel)).ended:
        running = [one for one in running if one not in decision.needless] + list(decision.probe)
        assert 0 < len(running) <= parallel
        ended = running.pop(data.draw(st.integers(0, len(running) - 1)))
        verdicts[ended] = Verdict.BAD if ended in broken else Verdict.GOOD
    assert decision.suspects == (first_bad,)


@pytest.mark.parametrize(("parallel", "probes"), [(1, (0,)), (2, (0, 3)), (3, (0, 3))])
def test_the_ends_come_first(parallel: int, probes: tuple[int, ...]) -> None:
    assert line(3).decide({}, (), parallel).probe == probes
    assert line(3).decide({0: Verdict.GOOD}, [3], parallel).probe == ()
    assert line(3).decide({0: Verdict.GOOD}, (), parallel).probe == (3,)


def test_a_probe_of_which_nothing_can_be_learnt_is_needless() -> None:
    ends = {0: Verdict.GOOD, 15: Verdict.BAD}
    first = line(15).decide(ends, (), 3)
    assert sorted(first.probe) == [4, 7, 11]
    decision = line(15).decide({**ends, 7: Verdict.BAD}, [4, 11], 3)
    assert decision.needless == (11,)
    assert set(decision.probe) < set(range(1, 7)) - {4}


def test_a_bad_one_that_a_good_one_follows_is_told() -> None:
    decision = line(9).decide({0: Verdict.GOOD, 9: Verdict.BAD, 3: Verdict.BAD, 6: Verdict.GOOD}, (), 1)
    assert (decision.contradictions, decision.suspects) == ((3,), (7, 8, 9))


@pytest.mark.parametrize("parents", [[], [[]], [[], [1]], [[], [2], [1]]])
def test_what_is_no_history_is_refused(parents: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"ends|follows"):
        Search(parents)

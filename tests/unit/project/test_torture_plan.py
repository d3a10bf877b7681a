"""The plan of a torture: what is done follows from the seed, leaves nothing out, and what did not happen is seen."""

from __future__ import annotations

import random
from collections import Counter

import boundaries
import pytest
from campaign import Report, Round, chosen
from disturbances import everything

NAMES = [(one.kind, one.where) for one in everything()]


def plan(seed: int, releases: int) -> list[tuple[str, str]]:
    return [(one.kind, one.where) for one in chosen(releases, random.Random(seed), everything())]


def test_each_disturbance_has_a_name_of_its_own() -> None:
    assert Counter(NAMES).most_common(1)[0][1] == 1
    assert {one.place for one in boundaries.BOUNDARIES} == {where for kind, where in NAMES if kind == "boundary"}


@pytest.mark.parametrize("seed", [0, 1, 494368])
def test_a_long_campaign_has_all_of_them_and_a_short_one_one_of_each_kind(seed: int) -> None:
    kinds = {kind for kind, _ in NAMES}
    assert sorted(plan(seed, 100)) == sorted(NAMES)
    assert sorted(kind for kind, _ in plan(seed, len(kinds))) == sorted(kinds)
    assert plan(seed, 100) == plan(seed, 100) != plan(seed + 2, 100)


def test_what_did_not_happen_in_any_round_is_told() -> None:
    report = Report(1, "make torture SEED=1", "state")
    report.rounds += [Round("kill", "web", []), Round("kill", "web", [], happened=True), Round("pause", "refs", [])]
    assert report.missed() == {"pause, refs"}
    assert report.clean
    report.complaints["disturbance that did not happen"] += sorted(report.missed())
    assert not report.clean

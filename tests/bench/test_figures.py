"""The sums behind the measurements."""

from __future__ import annotations

from typing import Any

import pytest
from account import account, commands_of_any_build, phase_overheads, phase_rows
from endurance import Sample, drawn, left_rows, memory_rows, shares
from figures import percentile, ratio, summary


@pytest.mark.parametrize(("share", "expected"), [(0, 1.0), (0.5, 2.5), (0.95, 3.85), (1, 4.0)])
def test_a_percentile_lies_between_two_values_in_proportion(share: float, expected: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], share) == pytest.approx(expected)


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_summary_of_one_value_is_that_value() -> None:
    assert summary([2.0]) == {"n": 1, "p50": 2.0, "p95": 2.0, "least": 2.0, "most": 2.0}


def test_a_ratio_says_how_many_times_faster_we_are() -> None:
    assert ratio(2.0, 30.0) == 15.0
    assert ratio(0.0, 30.0) is None


def at(second: float) -> str:
    return f"2030-01-01T12:00:{second:09.6f}Z"


def phase(name: str, begin: float, end: float, *, inside: float, reset: float | None, commands: float) -> Any:
    steps = [{"started_at": at(begin + 2), "seconds": commands}] if commands else []
    return {
        "name": name,
        "started_at": at(begin),
        "finished_at": at(end),
        "seconds": inside,
        "reset_seconds": reset,
        "command_seconds": commands,
        "steps": steps,
    }


def build(target: str, begin: float, end: float, phases: list[Any], attempt: int = 1) -> Any:
    return {"target": target, "attempt": attempt, "started_at": at(begin), "finished_at": at(end), "phases": phases}


@pytest.fixture
def view() -> Any:
    """A release with two builds; the rpm ends last. Its `upgrade` was skipped without a guest."""
    deb = [phase("build", 3, 12, inside=8, reset=1, commands=6)]
    rpm = [
        phase("build", 4, 14, inside=9, reset=1, commands=7),
        phase("upgrade", 15, 16, inside=0.5, reset=None, commands=0),
    ]
    return {
        "product": "tally",
        "ref": "v1",
        "recorded_at": at(0),
        "claimed_at": at(1),
        "finished_at": at(17),
        "published": [{"at": at(19)}],
        "builds": [build("debian-12/deb", 2, 13, deb), build("debian-12/rpm", 3, 17, rpm)],
    }


def test_the_parts_of_the_critical_path_add_up_to_the_total(view: Any) -> None:
    spent = account(view)
    assert spent.total == pytest.approx(19)
    assert (spent.claim, spent.worker, spent.source) == (1, 2, 1)
    assert (spent.reset, spent.commands, spent.publication) == (1, 7, 2)
    assert spent.handover == pytest.approx(1.5)
    assert spent.rest == pytest.approx(1.5)
    assert spent.between == pytest.approx(2)
    assert spent.overhead == pytest.approx(12)
    assert spent.without_resets == pytest.approx(11)


def test_a_second_attempt_is_no_measurement(view: Any) -> None:
    view["builds"][0]["attempt"] = 2
    with pytest.raises(ValueError, match="tried again"):
        account(view)


def test_commands_that_overlap_count_once(view: Any) -> None:
    # deb from 5 to 11, rpm from 6 to 13
    assert commands_of_any_build(view) == pytest.approx(8)


def test_the_phases_shown_are_those_of_the_build_that_ended_last(view: Any) -> None:
    rows = phase_rows(view)
    assert [(row["target"], row["phase"], row["whole"], row["handover"]) for row in rows] == [
        ("debian-12/rpm", "build", 10, 1),
        ("debian-12/rpm", "upgrade", 1, 0.5),
    ]


def test_what_a_phase_costs_is_all_but_its_commands(view: Any) -> None:
    # 9 s for 6 s of commands, 10 s for 7; the upgrade had no guest.
    assert phase_overheads([view, view]) == {"build": [pytest.approx(3)] * 4}


@pytest.mark.parametrize("releases", [1, 100, 2000])
def test_a_day_has_all_its_releases_and_most_of_them_by_day(releases: int) -> None:
    hours = shares(releases)
    assert (len(hours), sum(hours), min(hours) >= 0) == (24, releases, True)
    assert sum(hours[8:18]) >= sum(hours[:8]) + sum(hours[18:])


def samples(*shares: float, process: int = 1) -> list[Sample]:
    return [
        Sample(index, {"master": share + 10}, {"master": share}, {"master": process})
        for index, share in enumerate(shares)
    ]


def test_a_process_that_grew_is_marked() -> None:
    [row] = memory_rows(samples(100.0, 105.0, 111.0))
    assert (row["beginning"], row["middle"], row["end"], row["resident"]) == (100.0, 105.0, 111.0, 121.0)
    assert (row["growth"], row["grown"]) == ("+11.0%", "yes")
    assert memory_rows(samples(100.0, 120.0, 109.0))[0]["grown"] == ""


def test_a_process_that_was_started_anew_did_not_grow() -> None:
    [row] = memory_rows([*samples(50.0, 60.0), *samples(90.0, process=2)])
    assert (row["growth"], row["grown"]) == ("started anew", "")


def test_what_a_release_leaves_is_what_grew() -> None:
    rows = left_rows({"rows of a": 10, "KiB in b": 5}, {"rows of a": 40, "KiB in b": 5, "rows of c": 10}, 10)
    assert rows == [{"what": "rows of a", "each": 3.0}, {"what": "rows of c", "each": 1.0}]


def test_the_plot_says_what_it_shows() -> None:
    text = drawn(samples(100.0, 120.0, 110.0))
    assert "master: 110.0 MiB at the end, at most 120.0" in text
    assert text.count("h0") == 3

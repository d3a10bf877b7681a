"""When what is under way will have been built, by how long the like of it took."""

from __future__ import annotations

from cleanroom_db.estimates import Open, predicted


def test_what_runs_takes_what_it_usually_takes() -> None:
    running = [Open("release", 1, 40.0, 100.0), Open("release", 2, 500.0, 100.0), Open("trial", 1, 1.0, None)]
    assert predicted(running, 3) == {("release", 1): 60.0, ("release", 2): 0.0}


def test_what_waits_begins_where_a_place_becomes_free() -> None:
    known = [Open("release", 1, 40.0, 100.0), Open("release", 2, 10.0, 100.0)]
    waiting = [Open("release", 3, None, 30.0), Open("release", 4, None, 10.0), Open("trial", 3, None, 5.0)]
    # The first begins after 60 s and ends after 90, and so do those after it; two at a time.
    assert predicted([*known, *waiting], 2) == {
        ("release", 1): 60.0,
        ("release", 2): 90.0,
        ("release", 3): 90.0,
        ("release", 4): 100.0,
        ("trial", 3): 95.0,
    }


def test_a_release_is_built_once_all_its_targets_are() -> None:
    two = [Open("release", 1, 0.0, 10.0), Open("release", 1, None, 20.0)]
    assert predicted(two, 1) == {("release", 1): 30.0}
    assert predicted([*two, Open("release", 1, None, None)], 1) == {}


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert predicted([], 0) == {}
    assert predicted([Open("release", 1, None, None)], 0) == {}

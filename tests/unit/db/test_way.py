"""What happens to a release next, by what is known of it."""

from __future__ import annotations

from typing import Any

import pytest

from cleanroom_db.states import ReleaseState
from cleanroom_db.way import stations, what_next

BUILD: dict[str, Any] = {
    "target": "debian-12/deb",
    "attempt": 1,
    "outcome": None,
    "pauses": False,
    "queued_at": "2030-01-01T00:00:01Z",
    "started_at": None,
    "not_before": "2030-01-01T00:10:00Z",
    "planned": ["build", "install"],
    "phases": [],
}
PHASE: dict[str, Any] = {
    "name": "build",
    "outcome": "passed",
    "started_at": "2030-01-01T00:00:02Z",
    "finished_at": "2030-01-01T00:00:09Z",
    "seconds": 7.0,
    "reset_seconds": 0.5,
    "why": "",
    "replays": [],
}
VIEW: dict[str, Any] = {
    "product": "hello",
    "ref": "v1",
    "state": "building",
    "channel": "testing",
    "requested_by": "hook",
    "recorded_at": "2030-01-01T00:00:00Z",
    "claimed_at": "2030-01-01T00:00:01Z",
    "builds": [BUILD],
    "gates": [{"gate": "builds", "state": None, "why": "", "evaluated_at": None}],
    "published": [],
    "removed": [],
    "canaries": [],
}


def gate(name: str, state: str, why: str = "") -> dict[str, Any]:
    return {"gate": name, "state": state, "why": why, "evaluated_at": "2030-01-01T00:01:00Z"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "It is built as soon as a worker is free"),
        ({"builds": [{**BUILD, "started_at": "2030-01-01T00:00:02Z"}]}, "1 build to go; then its gates are judged"),
        ({"builds": [{**BUILD, "pauses": True}]}, "Attempt 1 begins at 2030-01-01T00:10:00Z"),
        ({"builds": [{**BUILD, "outcome": "passed"}], "gates": [gate("union", "waits", "x")]}, "once that is known: x"),
        ({"state": "passed"}, "The publisher takes it into testing"),
        ({"state": "published", "published": [{"channel": "stable"}]}, "Consumers of stable get it"),
        ({"state": "failed"}, "cleanroom release retry hello v1"),
        ({"state": "held", "gates": [gate("approval", "fails")]}, "cleanroom release approve hello v1 --reason"),
        ({"state": "held", "gates": [gate("no-regression", "fails")]}, "waive no-regression"),
        ({"state": "held", "gates": [gate("builds", "fails")]}, "build it again"),
        ({"state": "held"}, "cleanroom release approve hello v1"),
        ({"state": "cancelled"}, "cleanroom release retry hello v1"),
        ({"state": "withdrawn"}, "a new version is needed"),
        ({"state": "withdrawn", "removed": [{"how": "rollback"}]}, "It comes back with a rollback"),
    ],
)
def test_a_release_says_what_comes_next(changes: dict[str, Any], told: str) -> None:
    assert told in what_next({**VIEW, **changes})


def test_every_state_has_something_to_say() -> None:
    assert all(what_next({**VIEW, "state": state.value}) for state in ReleaseState)


def test_a_way_has_what_was_what_is_and_what_is_ahead() -> None:
    build = {**BUILD, "started_at": "2030-01-01T00:00:02Z", "phases": [PHASE]}
    found = [(one.name, one.state, one.seconds) for one in stations({**VIEW, "builds": [build]})]
    assert found == [
        ("recorded", "done", None),
        ("claimed", "done", 1.0),
        ("waiting for a worker", "done", 1.0),
        ("build", "passed", 7.0),
        ("install", "ahead", None),
        ("gates", "ahead", None),
        ("published", "ahead", None),
    ]


def test_gates_are_closed_as_soon_as_one_is() -> None:
    def state(*states: str) -> str:
        view = {**VIEW, "gates": [gate(str(number), state) for number, state in enumerate(states)]}
        return next(one.state for one in stations(view) if one.name == "gates")

    assert state("holds", "waits", "fails") == "fails"
    assert state("holds", "waits") == "waits"
    assert state("holds", "waived") == "holds"


def test_consumers_are_a_part_of_the_way() -> None:
    canary = {"channel": "testing", "generation": 7, "state": "passed", "said": "installed", "finished_at": None}
    view = {**VIEW, "state": "published", "canaries": [canary]}
    assert [(one.state, one.about) for one in stations(view) if one.name == "consumers"] == [
        ("passed", "testing, generation 7: installed")
    ]

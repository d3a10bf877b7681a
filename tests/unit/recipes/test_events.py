from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom_base.errors import InputError
from cleanroom_recipes import events
from cleanroom_recipes.model import GuestNetwork, Isolation, Outcome

AT = datetime(2026, 1, 31, 12, 0, 0, 250_000, UTC)
EXAMPLES: list[events.Event] = [
    events.PhaseStarted(AT, "build"),
    events.Reset(AT, "g", "debian-12", "0" * 64, Isolation.CONTAINER, "overlay", GuestNetwork.MIRROR, 0.5),
    events.StepStarted(AT, "unpack", 0),
    events.Output(AT, "unpack", "ä\n\\xff \x1b[1m\u2028"),
    events.StepFinished(AT, "unpack", Outcome.FAILED, 2, 1.5, "because", 10, False),
    events.StepFinished(AT, "unpack", Outcome.FAILED, None, 1.5, None, 10, True, "some were left out"),
    events.counted(
        AT, "unpack", (events.TestCase("a", Outcome.PASSED), events.TestCase("b", Outcome.FAILED, 1.0, "x", 7))
    ),
    events.Version(AT, "1:1.0~rc1+git2-3"),
    events.Installed(AT, {"libc6": "2.36-9+deb12u4", "rpm:tally": "1.0-1"}),
    events.Artifact(AT, "a_1.0_amd64.deb", 10, "0" * 64, "deb", "a", "1.0", "amd64"),
    events.PhaseFinished(AT, Outcome.SKIPPED, "nothing", 1.0, 0.0),
    events.StartingState(AT, "a" * 64, 3),
]


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.kind)
def test_an_event_survives_the_line(event: events.Event) -> None:
    line = events.encode(event)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert events.decode(line) == event


def test_every_kind_has_an_example() -> None:
    assert {event.kind for event in EXAMPLES} == set(events.KINDS)


def test_the_form_of_a_line_is_a_contract() -> None:
    assert json.loads(events.encode(EXAMPLES[1])) == {
        "event": "reset",
        "at": "2026-01-31T12:00:00.250000Z",
        "guest": "g",
        "image": "debian-12",
        "digest": "0" * 64,
        "isolation": "container",
        "method": "overlay",
        "network": "mirror",
        "seconds": 0.5,
    }


def test_what_an_earlier_worker_says_is_understood() -> None:
    line = json.loads(events.encode(EXAMPLES[4]))
    del line["remark"]
    assert events.decode(json.dumps(line).encode()) == EXAMPLES[4]


@pytest.mark.parametrize("character", ["a", "\U0001f600", "\x01", '"'])
def test_any_number_of_tests_fits_into_lines(character: str) -> None:
    name, message = character * events.NAME_LIMIT, character * events.MESSAGE_LIMIT
    cases = [events.TestCase(name, Outcome.FAILED, 0.1 + 1e-17, message, number + 1) for number in range(1203)]
    told = list(events.in_events(AT, "unpack", cases))
    assert [case for event in told for case in event.cases] == cases
    assert sum(event.failed for event in told) == 1203
    for event in told:
        assert events.decode(events.encode(event)) == event
    assert list(events.in_events(AT, "unpack", [])) == []


def test_tests_are_counted() -> None:
    event = EXAMPLES[6]
    assert isinstance(event, events.Tests)
    assert (event.passed, event.failed, event.skipped) == (1, 1, 0)


def changed(event: events.Event, **values: object) -> bytes:
    return json.dumps({**json.loads(events.encode(event)), **values}).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b'{"event": "phase_started"',
        b'{"event": "unheard_of"}',
        b'{"event": ["phase_started"]}',
        b"[" * 100_000,
        b'{"event": "output", "text": "' + b"x" * 300_000 + b'"}',
        b'{"event":"phase_started","at":"2026-01-31T12:00:00Z","phase":"a","phase":"b"}',
        changed(EXAMPLES[0], phase="../etc"),
        changed(EXAMPLES[0], at="yesterday"),
        changed(EXAMPLES[0], at="2026-01-31T12:00:00"),
        changed(EXAMPLES[0], at=5),
        changed(EXAMPLES[0], more=1),
        changed(EXAMPLES[2], position=-1),
        changed(EXAMPLES[2], position=True),
        changed(EXAMPLES[2], position="1"),
        changed(EXAMPLES[2], position=10**400),
        changed(EXAMPLES[3], text="x" * 32_769),
        changed(EXAMPLES[3], text="\0"),
        changed(EXAMPLES[3], text="\ud800"),
        changed(EXAMPLES[4], outcome="great"),
        changed(EXAMPLES[4], seconds=float("nan")),
        changed(EXAMPLES[4], seconds=float("inf")),
        changed(EXAMPLES[4], seconds=-1),
        changed(EXAMPLES[4], why="x" * 1001),
        changed(EXAMPLES[6], cases=[{"name": "a", "outcome": "passed"}] * 501),
        changed(EXAMPLES[6], cases={"name": "a"}),
        changed(EXAMPLES[8], file="../../x.deb"),
        changed(EXAMPLES[8], file="-x.deb"),
        changed(EXAMPLES[8], sha256="0"),
        changed(EXAMPLES[8], size=-1),
    ],
)
def test_hostile_lines_are_refused(line: bytes) -> None:
    with pytest.raises(InputError):
        events.decode(line)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_event_or_an_input_error(line: bytes) -> None:
    with pytest.raises(InputError):
        events.decode(line)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=2000))
def test_any_output_survives(text: str) -> None:
    event = events.Output(AT, "step", text)
    assert events.decode(events.encode(event)) == event


def test_the_largest_output_fits_a_line() -> None:
    for character in ("\x01", "\U0001f600", "\\", "x"):
        line = events.encode(events.Output(AT, "s" * 64, character * events.TEXT_LIMIT))
        assert len(line) <= events.LINE_LIMIT

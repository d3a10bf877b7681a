"""The way of a tag in a terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest

from cleanroom_db.way import Station
from cleanroom_master.cli.watching import Screen, lines

VIEW: dict[str, Any] = {
    "product": "hello",
    "ref": "v1",
    "version": "1-1",
    "state": "building",
    "why": "debian-12/deb: in phase build: \x1b[2Jcompile",
    "next": "1 build to go.",
}
STATIONS = [
    Station("recorded", "done", start="2030-01-01T00:00:00Z", about="by hook"),
    Station("build", "running", "debian-12/deb", "2030-01-01T00:00:10Z", None, 0.25),
    Station("install", "ahead", "debian-12/deb"),
    Station("gates", "ahead", about="1 gate"),
]


def test_a_way_is_told_part_by_part() -> None:
    shown = lines(VIEW, STATIONS, datetime(2030, 1, 1, 0, 0, 15, tzinfo=UTC))
    assert shown[:3] == [
        "hello v1 (1-1) is building",
        "  debian-12/deb: in phase build: \\x1b[2Jcompile",
        "  next: 1 build to go.",
    ]
    assert [line.split() for line in shown[3:]] == [
        [],
        ["recorded", "done", "by", "hook"],
        ["debian-12/deb"],
        ["build", "running", "5.0", "s", "reset", "0.25", "s"],
        ["install", "ahead"],
        [],
        ["gates", "ahead", "1", "gate"],
    ]


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


WHOLE: dict[str, Any] = {
    **VIEW,
    "channel": "testing",
    "requested_by": "hook",
    "recorded_at": "2030-01-01T00:00:00Z",
    "claimed_at": None,
    "builds": [],
    "gates": [{"gate": "builds", "state": "holds", "why": "", "evaluated_at": "2030-01-01T00:01:00Z"}],
    "published": [],
    "removed": [],
    "canaries": [],
}


def test_a_terminal_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "6")
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    screen = Screen(stream)
    screen.show(WHOLE)
    screen.show(WHOLE)
    first, second = stream.getvalue().split("\x1b[5F\x1b[J")
    assert first == second
    assert len(first.splitlines()) == 5
    assert max(map(len, first.splitlines())) <= 29


def test_a_file_gets_a_line_for_each_change() -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    screen.show(WHOLE)
    screen.show(WHOLE)
    assert [line.split()[:4] for line in stream.getvalue().splitlines()] == [
        ["hello", "v1:", "recorded", "done"],
        ["hello", "v1:", "gates", "holds"],
    ]

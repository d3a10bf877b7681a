"""The parts of a way lie on one scale of time."""

from __future__ import annotations

from datetime import UTC, datetime

from cleanroom_db.way import Station
from cleanroom_master.web import lanes

NOW = datetime(2030, 1, 1, 0, 5, tzinfo=UTC)


def part(minute: int, seconds: float | None, reset: float | None = 0.0, name: str = "build") -> Station:
    return Station(name, "passed", "debian-12/deb", f"2030-01-01T00:{minute:02}:00Z", seconds, reset)


def test_parts_follow_each_other() -> None:
    first, second = part(0, 60.0, 6.0), part(1, 240.0, name="install")
    bars = lanes.draw([first, second], NOW)
    assert (bars[first].begin, bars[first].length, bars[first].reset) == (0.0, 200.0, 20.0)
    assert (bars[second].begin, bars[second].length) == (200.0, 800.0)


def test_what_runs_goes_until_now() -> None:
    running = part(4, None)
    bars = lanes.draw([part(0, 240.0), running], NOW)
    assert (bars[running].begin, bars[running].length) == (800.0, 200.0)


def test_a_long_wait_leaves_room_for_the_rest() -> None:
    waiting = Station("waiting for a worker", "done", "debian-12/deb", "2029-12-01T00:00:00Z", 31 * 86400.0)
    ran = part(0, 300.0)
    bars = lanes.draw([waiting, ran], NOW)
    assert bars[ran].length == 800.0
    assert bars[waiting].begin == 0.0
    assert bars[waiting].length == 200.0


def test_what_has_not_begun_has_no_bar() -> None:
    assert lanes.draw([Station("build", "ahead", "debian-12/deb"), Station("gates", "ahead")], NOW) == {}

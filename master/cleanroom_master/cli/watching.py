"""`cleanroom release watch`: the way of a tag in the terminal, as the web shows it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import IO, Any

from cleanroom_db import way
from cleanroom_db.way import Station
from cleanroom_master.cli.frame import printable

# Source: ECMA-48: CPL goes up by lines, ED erases what is below.
_UP, _ERASE = "\x1b[{}F", "\x1b[J"
_NAME, _STATE = 24, 14


class Screen:
    """Shows a way that goes on: drawn anew on a terminal, else a line for each change."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._draws = stream.isatty()
        self._drawn = 0
        self._said: dict[tuple[str, str], str] = {}

    def show(self, view: dict[str, Any]) -> None:
        """How a release stands now."""
        stations = way.stations(view)
        if self._draws:
            self._draw(lines(view, stations, datetime.now(UTC)))
        else:
            self._tell(view, stations)
        self._stream.flush()

    def _draw(self, shown: list[str]) -> None:
        size = shutil.get_terminal_size()
        shown = [line[: size.columns - 1] for line in shown[: size.lines - 1]]
        back = _UP.format(self._drawn) + _ERASE if self._drawn else ""
        self._stream.write(back + "".join(f"{line}\n" for line in shown))
        self._drawn = len(shown)

    def _tell(self, view: dict[str, Any], stations: Iterable[Station]) -> None:
        for one in stations:
            if one.state != "ahead" and self._said.get((one.target, one.name)) != one.state:
                self._said[one.target, one.name] = one.state
                place = f"{one.target}: " if one.target else ""
                self._stream.write(f"{view['product']} {view['ref']}: {place}{_line(one, None)}\n")


def lines(view: dict[str, Any], stations: Iterable[Station], now: datetime) -> list[str]:
    """A way as lines: the sentence, then every part in its order, those of a target together."""
    shown = [f"{view['product']} {view['ref']} ({view['version'] or 'version not known yet'}) is {view['state']}"]
    shown += [f"  {printable(sentence)}" for sentence in (view["why"], f"next: {view['next']}") if sentence]
    target = None
    for one in stations:
        if one.target != target:
            target = one.target
            shown.append(target or "")
        shown.append(f"  {_line(one, now)}")
    return shown


def _line(one: Station, now: datetime | None) -> str:
    seconds = one.seconds
    if one.state == "running" and seconds is None and one.start is not None and now is not None:
        seconds = max(0.0, (now - datetime.fromisoformat(one.start)).total_seconds())
    took = "" if seconds is None else f"{seconds:.1f} s"
    reset = "" if one.reset_seconds is None else f"reset {one.reset_seconds:.2f} s"
    about = "; ".join(part for part in (reset, printable(one.about)) if part)
    return f"{one.name:{_NAME}} {one.state:{_STATE}} {took:>9}  {about}".rstrip()

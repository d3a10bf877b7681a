"""The Test Anything Protocol, versions 12 to 14: files of it, and the lines for `prove` to look at.

Source: testanything.org, "TAP version 14". Subtests are indented and their parent says how they ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import IO

from cleanroom_recipes.events import TestCase
from cleanroom_recipes.model import Outcome
from cleanroom_workers.results.case import BrokenResults, Said, case
from cleanroom_workers.results.lines import lines

_RESULT = re.compile(r"(not )?ok\b(?: ++(\d++))?(?: ++- ?| -(?= )| ++|$)(.*)")
_NUMBERED = re.compile(r"(?:not )?ok \d")
_DIRECTIVE = re.compile(r"(?:^|(?<=\s))# ?(SKIP|TODO)\w*:?(?:\s(.*))?$", re.IGNORECASE)
_PLAN = re.compile(r"1\.\.(\d{1,9})(?: *# *(skip)\w*:? *(.*))?", re.IGNORECASE)
_BAIL = re.compile(r"Bail out! ?(.*)")
_BEGINNINGS = (b"TAP version ", b"1..", b"ok ", b"not ok ", b"Bail out!")


def fits(name: str, head: bytes) -> bool:
    """Whether a file is one of TAP."""
    return name.endswith(".tap") or head.startswith(_BEGINNINGS)


def read(stream: IO[bytes]) -> Iterator[TestCase]:
    """The cases of a file. Raises BrokenResults where there are not as many as planned."""
    tap = Tap()
    for line in lines(stream):
        yield from tap.take(line, None)
    yield from tap.end()
    if tap.planned is not None and tap.planned > tap.seen:
        raise BrokenResults(f"planned {tap.planned} tests and has {tap.seen}")


class Tap:
    """The lines of one TAP stream; `scope` goes before the names."""

    def __init__(self, scope: str = "", *, numbered: bool = False) -> None:
        """`numbered`: only lines with a test's number count, as among other things in a log."""
        self.planned: int | None = None
        self.seen = 0
        self._scope = scope
        self._numbered = numbered
        self._failed: tuple[str, int | None] | None = None
        self._said = Said()

    def take(self, line: str, number: int | None) -> Iterable[TestCase]:
        """The cases that a line completes: a failed one waits for what is said about it."""
        if self._failed is not None and line.startswith("#"):
            self._said.add(line.strip("# "))
            return ()
        if not line.startswith(("ok", "not ok", "1..", "Bail")):
            return self.end() if self._failed is not None and line and line[0] not in " \t" else ()
        return [*self.end(), *self._result(line, number)]

    def end(self) -> Iterable[TestCase]:
        """The failed case that waits."""
        if self._failed is None:
            return ()
        (name, number), self._failed = self._failed, None
        return (case(name, Outcome.FAILED, message=self._said.text, line=number),)

    def _result(self, line: str, number: int | None) -> Iterable[TestCase]:
        if (plan := _PLAN.match(line)) is not None:
            self.planned = int(plan[1])
            return ()
        if (bail := _BAIL.match(line)) is not None:
            return (case(f"{self._scope}Bail out!", Outcome.FAILED, message=bail[1], line=number),)
        found = _RESULT.match(line)
        if found is None or (self._numbered and not _NUMBERED.match(line)):
            return ()
        return self._test(found, number)

    def _test(self, found: re.Match[str], number: int | None) -> Iterable[TestCase]:
        self.seen += 1
        description, directive, reason = found[3], "", None
        if (said := _DIRECTIVE.search(description)) is not None:
            description, directive, reason = description[: said.start()], said[1].upper(), said[2]
        name = f"{self._scope}{description.strip() or f'test {found[2] or self.seen}'}"
        outcome = Outcome.FAILED if found[1] else Outcome.PASSED
        if directive == "SKIP" or (directive == "TODO" and outcome is Outcome.FAILED):
            outcome = Outcome.SKIPPED
        if outcome is Outcome.FAILED:
            self._failed, self._said = (name, number), Said()
            return ()
        return (case(name, outcome, message=reason, line=number),)

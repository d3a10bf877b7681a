"""autopkgtest's `summary` file: a line for each DEP-8 test (autopkgtest(1), "OUTPUT DIRECTORY"), and its log."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import IO

from cleanroom_recipes.events import TestCase
from cleanroom_recipes.model import Outcome
from cleanroom_workers.results.case import case
from cleanroom_workers.results.lines import lines

_MARK = re.compile(r"- - results - -|@@ summary$")
_OUTCOMES = {"PASS": Outcome.PASSED, "SKIP": Outcome.SKIPPED, "FLAKY": Outcome.SKIPPED, "FAIL": Outcome.FAILED}


def fits(name: str, _head: bytes) -> bool:
    """Whether a file is such a summary."""
    return name.endswith("/autopkgtest/summary")


def read(stream: IO[bytes]) -> Iterator[TestCase]:
    """The tests in a summary; lines of another form are left out."""
    for line in lines(stream):
        yield from _case(line, None)


class Autopkgtest:
    """The same lines after each test and at the end of a log, below autopkgtest's own."""

    def __init__(self) -> None:
        self._results = False

    def take(self, line: str, number: int) -> Iterable[TestCase]:
        """As `Harness`."""
        if line.startswith("autopkgtest ["):
            self._results = _MARK.search(line) is not None
            return ()
        return _case(line, number) if self._results else ()

    def end(self) -> Iterable[TestCase]:
        """As `Harness`."""
        return ()


def _case(line: str, number: int | None) -> Iterable[TestCase]:
    words = line.split(maxsplit=2)
    if len(words) < 2 or words[1] not in _OUTCOMES or words[0] == "*":
        return ()
    return (case(words[0], _OUTCOMES[words[1]], message=words[2] if len(words) > 2 else None, line=number),)

"""pytest's lines with `-v`, alone or from pytest-xdist's workers, and its short test summary.

Names are pytest's own: `tests/test_a.py::TestIt::test_b[one two]`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from cleanroom_recipes.events import TestCase
from cleanroom_recipes.model import Outcome
from cleanroom_workers.results.case import case

_WORDS = "PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS"
_RESULT = re.compile(rf"(?>(\S.*?) ({_WORDS})(?= |$))(?: \((.*)\))? *+(?:\[ *+\d++%\])?$")
_OF_WORKER = re.compile(rf"\[gw\d++\] \[ *+\d++%\] ({_WORDS}) (\S.*)")
_SUMMARY = re.compile(rf"({_WORDS}) ([^\s\[]\S*+.*)")
_OUTCOMES = {
    "PASSED": Outcome.PASSED,
    "XFAIL": Outcome.PASSED,
    # Not strict: pytest itself counts it as no failure.
    "XPASS": Outcome.PASSED,
    "SKIPPED": Outcome.SKIPPED,
    "FAILED": Outcome.FAILED,
    "ERROR": Outcome.FAILED,
}
_KNOWN_LIMIT = 10_000
_ENDS_LIMIT = 20


class Pytest:
    """Lines stand for themselves, but where a name in the summary ends is told by what was said before."""

    def __init__(self) -> None:
        self._failed: set[str] = set()

    def take(self, line: str, number: int) -> Iterable[TestCase]:
        """As `Harness`."""
        if "::" not in line and ".py" not in line:
            return ()
        found = _OF_WORKER.match(line)
        if found is not None:
            return self._case(found[2].rstrip(), found[1], None, number)
        found = _SUMMARY.match(line)
        if found is not None:
            name, message = self._divided(found[2])
            return self._case(name, found[1], message, number)
        found = _RESULT.match(line)
        return () if found is None else self._case(found[1], found[2], found[3], number)

    def end(self) -> Iterable[TestCase]:
        """As `Harness`."""
        return ()

    def _case(self, name: str, word: str, message: str | None, number: int) -> Iterable[TestCase]:
        first = name.split(maxsplit=1)[0]
        # A file that cannot be collected stands for all of its tests.
        if "::" not in first and not (word == "ERROR" and first.endswith(".py") and first == name):
            return ()
        outcome = _OUTCOMES[word]
        if outcome is Outcome.FAILED and len(self._failed) < _KNOWN_LIMIT:
            self._failed.add(name)
        return (case(name, outcome, message=message if outcome is not Outcome.PASSED else None, line=number),)

    def _divided(self, text: str) -> tuple[str, str | None]:
        """The name and the message of a line of the summary; a parameter may hold the hyphen between them."""
        ends = [found.start() for found in itertools.islice(re.finditer(" - ", text), _ENDS_LIMIT)]
        for end in reversed(ends):
            if text[:end] in self._failed:
                return text[:end], text[end + 3 :]
        if text in self._failed or not ends:
            return text, None
        bracket = text.find("[")
        closed = [end for end in ends if text[end - 1] == "]"]
        end = closed[0] if closed and 0 <= bracket < ends[0] else ends[0]
        return text[:end], text[end + 3 :]

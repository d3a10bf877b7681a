"""What Maven's Surefire and Failsafe print: a line for each class, and one for each method that failed.

The class is a case; its methods are named only where they fail: `org.example.FirstTest.bad`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cleanroom_recipes.events import TestCase
from cleanroom_recipes.model import Outcome
from cleanroom_workers.results.case import case
from cleanroom_workers.results.case import number as as_number

_LEVEL = re.compile(r"\[(?:INFO|WARNING|ERROR)\] +")
_RUNNING = re.compile(r"Running (\S++)$")
_CLASS = re.compile(
    r"Tests run: (\d++), Failures: (\d++), Errors: (\d++), Skipped: (\d++), Time elapsed: (\d[\d.,]*+) s(?:ec)?"
    r"(?: <<< (?:FAILURE|ERROR)!)?(?: --? in (\S++))?"
)
# `method(class)` before Surefire 3.
_OLD_METHOD = re.compile(
    r"([^\s(]++)\(([^\s()]++)\) +(?:-- )?Time elapsed: (\d[\d.,]*+) s(?:ec)? +<<< (?:FAILURE|ERROR)!"
)
_NEW_METHOD = re.compile(r"(\S++) +-- +Time elapsed: (\d[\d.,]*+) s +<<< (?:FAILURE|ERROR)!")


class Surefire:
    """Knows the class that runs, which old versions do not name again, and the method whose exception comes next."""

    def __init__(self) -> None:
        self._class: str | None = None
        self._failed: tuple[str, float | None, int] | None = None

    def take(self, line: str, number: int) -> Iterable[TestCase]:
        """As `Harness`."""
        if self._failed is not None:
            return self._method(line)
        text = line if line[0] != "[" else _LEVEL.sub("", line, count=1)
        if text.startswith("Running "):
            found = _RUNNING.match(text)
            self._class = found[1] if found else self._class
        elif text.startswith("Tests run: "):
            return self._result(text, number)
        elif "<<<" in text:
            self._begin(text, number)
        return ()

    def end(self) -> Iterable[TestCase]:
        """As `Harness`."""
        return () if self._failed is None else self._method("")

    def _begin(self, text: str, number: int) -> None:
        if (found := _OLD_METHOD.match(text)) is not None:
            self._failed = (f"{found[2]}.{found[1]}", as_number(found[3]), number)
        elif (found := _NEW_METHOD.match(text)) is not None:
            self._failed = (found[1], as_number(found[2]), number)

    def _method(self, message: str) -> Iterable[TestCase]:
        """The failed method; the line after it says what was thrown."""
        assert self._failed is not None
        name, seconds, number = self._failed
        self._failed = None
        return (case(name, Outcome.FAILED, seconds=seconds, message=message, line=number),)

    def _result(self, text: str, number: int) -> Iterable[TestCase]:
        found = _CLASS.match(text)
        name = None if found is None else found[6] or self._class
        # Without a class it is the sum of all.
        if found is None or name is None:
            return ()
        self._class = None
        ran, failures, errors, skipped = (int(count[:9]) for count in found.group(1, 2, 3, 4))
        outcome = Outcome.FAILED if failures + errors else Outcome.SKIPPED if 0 < ran <= skipped else Outcome.PASSED
        message = f"{failures} failures and {errors} errors in {ran} tests" if failures + errors else None
        return (case(name, outcome, seconds=as_number(found[5]), message=message, line=number),)

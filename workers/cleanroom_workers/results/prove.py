"""`prove` and the TAP streams that it shows with `-v`; also TAP that comes without `prove`.

A script is a case of its own, since without `-v` nothing else is said, and since it may fail although all of its
tests pass. Tests are named after their script: `t/basic.t: first`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cleanroom_recipes.events import TestCase
from cleanroom_recipes.model import Outcome
from cleanroom_workers.results.case import Said, case
from cleanroom_workers.results.tap import Tap

_HEADER = re.compile(
    r"(?:\[\d\d:\d\d:\d\d\] )?(\S++) \.{2,}+ ?"
    r"(ok(?= |$)|skipped(?= |:|$)|Dubious,|Failed \d|No subtests run|All \d|$)(.*)"
)
_BAD = ("Dubious,", "Failed ", "No subtests run", "All ")
_SUMMARY = ("Test Summary Report", "All tests successful.", "Result: ")


class Prove:
    """Knows the script whose lines come now."""

    def __init__(self) -> None:
        self._script: tuple[str, int] | None = None
        self._bad = Said()
        self._tap = Tap(numbered=True)

    def take(self, line: str, number: int) -> Iterable[TestCase]:
        """As `Harness`."""
        found = _HEADER.match(line) if " .." in line else None
        if found is not None and ("/" in found[1] or "." in found[1]):
            return [*self.end(), *self._begin(found, number)]
        if self._script is not None:
            if line == "ok":
                name, place = self._script
                cases = [*self._tap.end(), case(name, Outcome.PASSED, line=place)]
                self._forget()
                return cases
            if line.startswith(_BAD):
                self._bad.add(line)
                return self._tap.end()
            if line.startswith(_SUMMARY):
                return self.end()
        return self._tap.take(line, number)

    def end(self) -> Iterable[TestCase]:
        """As `Harness`."""
        cases = list(self._tap.end())
        if self._script is not None and self._bad.text:
            name, place = self._script
            cases.append(case(name, Outcome.FAILED, message=self._bad.text, line=place))
        self._forget()
        return cases

    def _begin(self, found: re.Match[str], number: int) -> Iterable[TestCase]:
        script, word, rest = found[1], found[2], found[3]
        if word == "ok":
            return (case(script, Outcome.PASSED, line=number),)
        if word == "skipped":
            return (case(script, Outcome.SKIPPED, message=rest.lstrip(": "), line=number),)
        self._script, self._tap = (script, number), Tap(f"{script}: ", numbered=True)
        if word:
            self._bad.add(f"{word}{rest}")
        return ()

    def _forget(self) -> None:
        self._script, self._bad, self._tap = None, Said(), Tap(numbered=True)

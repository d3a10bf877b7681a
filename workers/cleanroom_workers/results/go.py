"""What `go test` prints, with `-v` and without: `--- FAIL: TestName (0.00s)`, and a line for each package.

A package is named after its tests, so these wait for it: a test is `example.org/module.TestName/subtest`. The package
is a case of its own, since without `-v` nothing else says that its tests passed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from cleanroom_recipes.events import TestCase
from cleanroom_recipes.model import Outcome
from cleanroom_workers.results.case import Said, case, harmless, stable_name
from cleanroom_workers.results.case import number as as_number

_RUN = re.compile(r"=== (?:RUN|NAME|CONT) ++(\S++)")
_RESULT = re.compile(r" *+--- (PASS|FAIL|SKIP): (\S++) \((\d[\d.]*+)s\)$")
_PACKAGE = re.compile(r"(ok  |FAIL)\t(\S++)(?:\t(?:(\d[\d.]*+)s|\(cached\))| \[(.*)\])?")
_SAID = re.compile(r"\s++((?>([^\s:]++))(?<=\.go):\d++: .*)")
_OUTCOMES = {"PASS": Outcome.PASSED, "SKIP": Outcome.SKIPPED, "FAIL": Outcome.FAILED}
_WAITING_LIMIT = 20_000
_SPEAKERS_LIMIT = 1000


class Go:
    """What a test says comes before its result with `-v`, and after it without."""

    def __init__(self) -> None:
        self._waiting: list[TestCase] = []
        self._said: dict[str, Said] = {}
        self._speaker: Said | None = None
        self._ended = False

    def take(self, line: str, number: int) -> Iterable[TestCase]:
        """As `Harness`."""
        first = line[0]
        if first in " \t":
            found = _SAID.match(line) if ".go:" in line else None
            if found is not None:
                self._hear(found[1])
                return ()
        elif first == "=":
            found = _RUN.match(line)
            if found is not None:
                self._listen(found[1])
            return ()
        elif first in "oF":
            return self._package(line, number)
        found = _RESULT.match(line) if "--- " in line else None
        return () if found is None else self._result(found, number)

    def end(self) -> Iterable[TestCase]:
        """As `Harness`."""
        waiting, self._waiting, self._said, self._speaker = self._waiting, [], {}, None
        return waiting

    def _listen(self, test: str) -> None:
        self._ended = False
        if len(self._said) < _SPEAKERS_LIMIT:
            self._speaker = self._said.setdefault(test, Said())

    def _hear(self, text: str) -> None:
        if self._speaker is None:
            return
        self._speaker.add(text)
        if self._ended and self._waiting and self._waiting[-1].outcome is not Outcome.PASSED:
            self._waiting[-1] = replace(self._waiting[-1], message=harmless(self._speaker.text))

    def _result(self, found: re.Match[str], number: int) -> Iterable[TestCase]:
        outcome = _OUTCOMES[found[1]]
        self._speaker, self._ended = self._said.pop(found[2], Said()), True
        message = self._speaker.text if outcome is not Outcome.PASSED else None
        self._waiting.append(case(found[2], outcome, seconds=as_number(found[3]), message=message, line=number))
        return self.end() if len(self._waiting) >= _WAITING_LIMIT else ()

    def _package(self, line: str, number: int) -> Iterator[TestCase]:
        found = _PACKAGE.match(line)
        if found is None:
            return
        for test in self.end():
            yield replace(test, name=stable_name(f"{found[2]}.{test.name}"))
        outcome = Outcome.PASSED if found[1] == "ok  " else Outcome.FAILED
        message = found[4] if outcome is Outcome.FAILED else None
        yield case(found[2], outcome, seconds=as_number(found[3]), message=message, line=number)

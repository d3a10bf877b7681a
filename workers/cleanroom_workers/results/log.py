"""Test cases among the lines that a step prints, in the words of the usual harnesses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from cleanroom_recipes.events import TestCase
from cleanroom_workers.results import automake, cargo, ctest, go, meson, prove, pytest, surefire
from cleanroom_workers.results.case import together

CASES_LIMIT = 200_000


class Harness(Protocol):
    """Recognises what one test harness prints; it is given every line of a log once."""

    def take(self, line: str, number: int) -> Iterable[TestCase]:
        """The cases that line `number` completes."""

    def end(self) -> Iterable[TestCase]:
        """The cases that only waited for more."""


HARNESSES: tuple[type[Harness], ...] = (
    automake.Automake,
    prove.Prove,
    ctest.CTest,
    meson.Meson,
    pytest.Pytest,
    go.Go,
    cargo.Cargo,
    surefire.Surefire,
)


class LogReport:
    """Collects test cases from the lines of a log.

    Harnesses name a test several times (as it ends, and in their summaries), so all that one of them says under one
    name is one case: the worst outcome, at the first line.
    """

    def __init__(self, harnesses: Sequence[type[Harness]] = HARNESSES) -> None:
        self._line = 0
        self._harnesses: list[tuple[Harness, dict[str, TestCase]]] = [(harness(), {}) for harness in harnesses]
        self._room = CASES_LIMIT
        self.left_out = 0

    def take(self, line: str) -> None:
        """Look at the next line."""
        self._line += 1
        line = line.rstrip("\r")
        if not line:
            return
        for harness, cases in self._harnesses:
            for case in harness.take(line, self._line):
                self._add(cases, case)

    def groups(self) -> list[list[TestCase]]:
        """All cases at the end of the log, those of each harness together."""
        for harness, cases in self._harnesses:
            for case in harness.end():
                self._add(cases, case)
        return [list(cases.values()) for _, cases in self._harnesses if cases]

    def _add(self, cases: dict[str, TestCase], case: TestCase) -> None:
        known = cases.get(case.name)
        if known is not None:
            cases[case.name] = together(known, case)
        elif self._room > 0:
            self._room -= 1
            cases[case.name] = case
        else:
            self.left_out += 1

"""Test results as test runners report them, to test cases.

Formats: Automake's "Script-based Test Suites" and TAP (producing lines `ok 1 - name`) among what a step
prints; autopkgtest's `summary` file (autopkgtest(1), "OUTPUT DIRECTORY").
"""

from __future__ import annotations

import re

from cleanroom_recipes.events import TestCase
from cleanroom_recipes.model import Outcome

CASES_LIMIT = 10_000

_AUTOMAKE = re.compile(r"^(PASS|XFAIL|SKIP|FAIL|XPASS|ERROR): (\S.*)$")
_TAP = re.compile(r"^(not ok|ok) (\d+)\b(?: -)?([^#]*)(?:#\s*(SKIP|TODO)\b\s*(.*))?$", re.IGNORECASE)
_OUTCOMES = {
    "PASS": Outcome.PASSED,
    "XFAIL": Outcome.PASSED,
    "SKIP": Outcome.SKIPPED,
    "FLAKY": Outcome.SKIPPED,
    "FAIL": Outcome.FAILED,
    "XPASS": Outcome.FAILED,
    "ERROR": Outcome.FAILED,
}


class LogReport:
    """Collects test results from the lines of a log; the last word about a test counts."""

    def __init__(self) -> None:
        self._cases: dict[str, TestCase] = {}

    @property
    def cases(self) -> tuple[TestCase, ...]:
        """The tests in the order in which they first came."""
        return tuple(self._cases.values())

    def take(self, line: str) -> None:
        """Look at one line."""
        case = _automake(line) or _tap(line)
        if case is not None and (len(self._cases) < CASES_LIMIT or case.name in self._cases):
            self._cases[case.name] = case


def autopkgtest(summary: str) -> tuple[TestCase, ...]:
    """The tests in autopkgtest's summary; lines of another form are left out."""
    cases = []
    for line in summary.splitlines()[:CASES_LIMIT]:
        words = line.split(maxsplit=2)
        if len(words) < 2 or words[1] not in _OUTCOMES or words[0] == "*":
            continue
        cases.append(_case(words[0], _OUTCOMES[words[1]], words[2] if len(words) > 2 else None))
    return tuple(cases)


def _automake(line: str) -> TestCase | None:
    found = _AUTOMAKE.match(line)
    return _case(found[2], _OUTCOMES[found[1]], None) if found else None


def _tap(line: str) -> TestCase | None:
    found = _TAP.match(line)
    if found is None:
        return None
    outcome = Outcome.PASSED if found[1].lower() == "ok" else Outcome.FAILED
    directive = (found[4] or "").upper()
    if directive == "SKIP" or (directive == "TODO" and outcome is Outcome.FAILED):
        outcome = Outcome.SKIPPED
    return _case(found[3].strip() or f"test {found[2]}", outcome, found[5] or None)


def _case(name: str, outcome: Outcome, message: str | None) -> TestCase:
    return TestCase(name.strip()[:256], outcome, None, message[:1024] if message else None)

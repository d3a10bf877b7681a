"""Test results as test runners report them, to test cases.

Formats: among what a step prints, Automake's "Script-based Test Suites", TAP (lines `ok 1 - name`), CTest's
and Meson's lines for each test; autopkgtest's `summary` file (autopkgtest(1), "OUTPUT DIRECTORY").
"""

from __future__ import annotations

import re

from cleanroom_recipes.events import TestCase
from cleanroom_recipes.model import Outcome

CASES_LIMIT = 10_000

_AUTOMAKE = re.compile(r"^(PASS|XFAIL|SKIP|FAIL|XPASS|ERROR): (\S.*)$")
_TAP = re.compile(r"^(not ok|ok) (\d+)\b(?: -)?([^#]*)(?:#\s*(SKIP|TODO)\b\s*(.*))?$", re.IGNORECASE)
_CTEST = re.compile(r"^ *\d+/\d+ Test +#\d+: (\S+) \.+ *(Passed|Skipped|\*\*\*\S.*?) +[\d.]+ sec")
_MESON = re.compile(
    r"^ *\d+/\d+ (\S.*?) +(OK|EXPECTEDFAIL|SKIP|FAIL|UNEXPECTEDPASS|TIMEOUT|ERROR|INTERRUPT) +[\d.]+ ?s"
)
_OUTCOMES = {
    "PASS": Outcome.PASSED,
    "XFAIL": Outcome.PASSED,
    "SKIP": Outcome.SKIPPED,
    "FLAKY": Outcome.SKIPPED,
    "FAIL": Outcome.FAILED,
    "XPASS": Outcome.FAILED,
    "ERROR": Outcome.FAILED,
}
# The words of CTest and Meson; every other word of theirs means that the test failed.
_MORE_OUTCOMES = {
    "Passed": Outcome.PASSED,
    "OK": Outcome.PASSED,
    "EXPECTEDFAIL": Outcome.PASSED,
    "Skipped": Outcome.SKIPPED,
    "***Skipped": Outcome.SKIPPED,
    "***Not Run (Disabled)": Outcome.SKIPPED,
    "SKIP": Outcome.SKIPPED,
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
        case = _automake(line) or _tap(line) or _ctest_or_meson(line)
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


def _ctest_or_meson(line: str) -> TestCase | None:
    found = _CTEST.match(line) or _MESON.match(line)
    return _case(found[1], _MORE_OUTCOMES.get(found[2], Outcome.FAILED), None) if found else None


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

"""Automake's "Script-based Test Suites": `PASS: name`, and what `VERBOSE=1` adds; DejaGnu writes the same."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cleanroom_recipes.events import TestCase
from cleanroom_recipes.model import Outcome
from cleanroom_workers.results.case import case

# `ERROR:` begins many a message; of Automake it is a test's name, alone or before `- exited with status 2`.
_RESULT = re.compile(r"(PASS|XFAIL|SKIP|FAIL|XPASS|ERROR): (\S.*)")
_ERROR = re.compile(r"(\S++(?: \d++\b)?)(?: - (.*)| *)$")
_STATUS = re.compile(r"(FAIL|ERROR|SKIP) (\S++) \((exit status: \d+)\)$")
_OUTCOMES = {
    "PASS": Outcome.PASSED,
    "XFAIL": Outcome.PASSED,
    "SKIP": Outcome.SKIPPED,
    "FAIL": Outcome.FAILED,
    "XPASS": Outcome.FAILED,
    "ERROR": Outcome.FAILED,
}


class Automake:
    """Each line stands for itself."""

    def take(self, line: str, number: int) -> Iterable[TestCase]:
        """As `Harness`."""
        if line[0] not in "PXSFE":
            return ()
        found = _RESULT.match(line)
        if found is not None:
            if found[1] == "ERROR":
                return _error(found[2], number)
            return (case(found[2], _OUTCOMES[found[1]], line=number),)
        found = _STATUS.match(line)
        return () if found is None else (case(found[2], _OUTCOMES[found[1]], message=found[3], line=number),)

    def end(self) -> Iterable[TestCase]:
        """As `Harness`."""
        return ()


def _error(text: str, number: int) -> Iterable[TestCase]:
    found = _ERROR.match(text)
    return () if found is None else (case(found[1], Outcome.FAILED, message=found[2], line=number),)

"""Meson's line for each test: `2/8 suite - project:name FAIL   0.02s   exit status 1`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cleanroom_recipes.events import TestCase
from cleanroom_recipes.model import Outcome
from cleanroom_workers.results.case import case
from cleanroom_workers.results.case import number as as_number

_RESULT = re.compile(
    r" *+\d++/\d++ (\S++(?: \S++)*?) ++"
    r"(OK|EXPECTEDFAIL|SKIP|FAIL|UNEXPECTEDPASS|TIMEOUT|ERROR|INTERRUPT) ++(\d[\d.]*+) ?s(?: +(\S.*))?$"
)
_FIRST = frozenset(" 0123456789")
_OUTCOMES = {"OK": Outcome.PASSED, "EXPECTEDFAIL": Outcome.PASSED, "SKIP": Outcome.SKIPPED}


class Meson:
    """Each line stands for itself."""

    def take(self, line: str, number: int) -> Iterable[TestCase]:
        """As `Harness`."""
        found = _RESULT.match(line) if line[0] in _FIRST else None
        if found is None:
            return ()
        outcome = _OUTCOMES.get(found[2], Outcome.FAILED)
        said = found[4] or (found[2] if outcome is Outcome.FAILED else None)
        message = None if outcome is Outcome.PASSED else said
        return (case(found[1], outcome, seconds=as_number(found[3]), message=message, line=number),)

    def end(self) -> Iterable[TestCase]:
        """As `Harness`."""
        return ()

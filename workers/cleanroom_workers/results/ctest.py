"""CTest's line for each test: `1/8 Test #1: name ......   Passed    0.01 sec`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cleanroom_recipes.events import TestCase
from cleanroom_recipes.model import Outcome
from cleanroom_workers.results.case import case
from cleanroom_workers.results.case import number as as_number

_RESULT = re.compile(
    r" *+\d++/\d++ Test +#\d++: (?>(.+?) \.++ *+(?=\*\*\*|Passed|Skipped))(.+?)(?<! ) ++(\d[\d.]*+) sec"
)
# A test's own words may hold line ends, such as the expression that its output does not match.
_BEGINNING = re.compile(r" *+\d++/\d++ Test +#\d++: (?>(.+?) \.++ *+(?=\*\*\*))\*\*\*(Failed|Exception|Timeout)(.*)")
_OUTCOMES = {
    "Passed": Outcome.PASSED,
    "Skipped": Outcome.SKIPPED,
    "***Skipped": Outcome.SKIPPED,
    "***Not Run (Disabled)": Outcome.SKIPPED,
}


class CTest:
    """Each line stands for itself; every word that is not known means that the test failed."""

    def take(self, line: str, number: int) -> Iterable[TestCase]:
        """As `Harness`."""
        if " Test " not in line:
            return ()
        found = _RESULT.match(line)
        if found is not None:
            outcome = _OUTCOMES.get(found[2], Outcome.FAILED)
            message = None if found[2] == "Passed" else found[2].strip("*")
            return (case(found[1], outcome, seconds=as_number(found[3]), message=message, line=number),)
        found = _BEGINNING.match(line)
        if found is None:
            return ()
        return (case(found[1], Outcome.FAILED, message=f"{found[2]}{found[3]}", line=number),)

    def end(self) -> Iterable[TestCase]:
        """As `Harness`."""
        return ()

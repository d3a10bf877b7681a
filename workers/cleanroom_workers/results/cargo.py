"""What `cargo test` prints (libtest): `test tests::it_adds ... ok`, and under `failures:` what a test said.

The same test may be in several crates, so a name begins with the crate: `my_sample::tests::it_adds`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cleanroom_recipes.events import TestCase
from cleanroom_recipes.model import Outcome
from cleanroom_workers.results.case import Said, case
from cleanroom_workers.results.case import number as as_number

_PROGRAM = re.compile(r"([\w.-]+?)(?:-[0-9a-f]{16})?$")
_RESULT = re.compile(
    r"test (?>(\S.*?) \.\.\. (?=ok|FAILED|ignored))(ok|FAILED|ignored)(?:, (.*))?(?: <(\d[\d.]*+)s>)?$"
)
_SECTION = re.compile(r"---- (\S.*?) stdout ----$")
_EXPECTATION = re.compile(r" - should panic(?: with .*)?$")
_OUTCOMES = {"ok": Outcome.PASSED, "ignored": Outcome.SKIPPED, "FAILED": Outcome.FAILED}


class Cargo:
    """Knows the crate whose tests run, and the test whose output is being told."""

    def __init__(self) -> None:
        self._crate = ""
        self._telling: tuple[str, int] | None = None
        self._said = Said()

    def take(self, line: str, number: int) -> Iterable[TestCase]:
        """As `Harness`."""
        if self._telling is not None:
            return self._told(line, number)
        if line.startswith("test "):
            found = _RESULT.match(line)
            return () if found is None else (self._case(found, number),)
        if line.startswith("   "):
            self._header(line.strip())
        elif line.startswith("---- "):
            self._begin(line, number)
        return ()

    def end(self) -> Iterable[TestCase]:
        """As `Harness`."""
        if self._telling is None:
            return ()
        name, number = self._telling
        self._telling = None
        return (case(name, Outcome.FAILED, message=self._said.text, line=number),)

    def _header(self, text: str) -> None:
        """`Running tests/it.rs (target/debug/deps/it-7d9c28ff8deedad9)` or `Doc-tests my_sample`."""
        if text.startswith("Running ") and text.endswith(")"):
            found = _PROGRAM.match(text[:-1].rpartition("(")[2].rpartition("/")[2])
            self._crate = found[1] if found is not None else ""
        elif text.startswith("Doc-tests "):
            self._crate = text.rsplit(maxsplit=1)[-1]

    def _case(self, found: re.Match[str], number: int) -> TestCase:
        name = self._named(_EXPECTATION.sub("", found[1]))
        message = found[3] if found[2] != "ok" else None
        return case(name, _OUTCOMES[found[2]], seconds=as_number(found[4]), message=message, line=number)

    def _named(self, test: str) -> str:
        return f"{self._crate}::{test}" if self._crate else test

    def _begin(self, line: str, number: int) -> None:
        found = _SECTION.match(line)
        if found is not None:
            self._telling, self._said = (self._named(found[1]), number), Said()

    def _told(self, line: str, number: int) -> Iterable[TestCase]:
        """One more line of a failed test, or the end of them."""
        if not line.startswith(("---- ", "failures:", "test result:", "stack backtrace:")):
            self._said.add(line)
            return ()
        ended = tuple(self.end())
        self._begin(line, number)
        return ended

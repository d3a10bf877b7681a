"""JUnit's XML as Surefire, CTest, Meson, pytest, Gradle and others write it; there is no standard of it.

Read by expat as it comes: no tree is made, a document type is refused (and with it every entity), and what a test
prints is passed over. A case is its class and its name, `org.example.FirstTest.bad`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO
from xml.parsers import expat

from cleanroom_recipes.events import MESSAGE_LIMIT, TestCase
from cleanroom_recipes.model import Outcome
from cleanroom_workers.results.case import BrokenResults, case, number

_BLOCK = 64 * 1024
_DEPTH = 50
# Expat keeps a token until it is complete, an attribute's value for example, and may look at it again and again.
_TOKEN_LIMIT = 1 << 20
_BEGINNINGS = tuple(
    mark + "<".encode(encoding)
    for mark, encoding in (
        (b"", "utf-8"),
        (b"\xef\xbb\xbf", "utf-8"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
    )
)
_SUITES = ("testsuites", "testsuite")
_FAILURES = {"failure": Outcome.FAILED, "error": Outcome.FAILED, "skipped": Outcome.SKIPPED}
# Surefire ran the test again: what failed first and passed then.
_FLAKY = ("flakyFailure", "flakyError")
_EXPECTED = "pytest.xfail"
# CTest's and GoogleTest's words for tests that did not run.
_NOT_RUN = ("notrun", "disabled")


def fits(name: str, head: bytes) -> bool:
    """Whether a file is XML."""
    return name.endswith(".xml") or head.lstrip().startswith(_BEGINNINGS)


def read(stream: IO[bytes]) -> Iterator[TestCase]:
    """The cases of a file. Raises BrokenResults."""
    reader = _Reader()
    try:
        wrong: BrokenResults | None = None
        block = b" "
        while block and wrong is None:
            block = stream.read(_BLOCK)
            wrong = reader.feed(block)
            yield from reader.taken()
        if wrong is not None:
            raise wrong
    finally:
        reader.close()


class _Reader:
    """What expat's events come to."""

    def __init__(self) -> None:
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._fed = 0
        self._depth = 0
        self._case: dict[str, str] | None = None
        self._outcome = Outcome.PASSED
        self._message = ""
        self._inside: list[str] | None = None
        self._room = 0
        self._complete: list[TestCase] = []

    def feed(self, block: bytes) -> BrokenResults | None:
        """Parse some more, and with nothing more the end; return what is wrong."""
        self._fed += len(block)
        try:
            self._parser.Parse(block, not block)
        except BrokenResults as error:
            return error
        except (expat.ExpatError, ValueError, LookupError) as error:
            # An unknown encoding is a LookupError; one that cannot be is a ValueError.
            return BrokenResults(f"is not well-formed XML: {error}")
        if block and self._fed - max(self._parser.CurrentByteIndex, 0) > _TOKEN_LIMIT:
            return BrokenResults(f"has a tag, value or comment of more than {_TOKEN_LIMIT} bytes")
        return None

    def taken(self) -> list[TestCase]:
        """The cases that are complete since the last time."""
        complete, self._complete = self._complete, []
        return complete

    def close(self) -> None:
        """Let go of the parser, which holds this object by its handlers."""
        self._parser.StartElementHandler = self._parser.EndElementHandler = None
        self._parser.CharacterDataHandler = self._parser.StartDoctypeDeclHandler = None

    def _doctype(self, *_: object) -> None:
        raise BrokenResults("has a document type, which is not read")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 1 and name not in _SUITES:
            raise BrokenResults(f"is no JUnit XML: it begins with {name[:100]!r}")
        if self._depth > _DEPTH:
            raise BrokenResults(f"is more than {_DEPTH} elements deep")
        if name == "testcase":
            self._case, self._outcome, self._message = attributes, Outcome.PASSED, ""
            if attributes.get("status") in _NOT_RUN or attributes.get("result") == "skipped":
                self._outcome = Outcome.SKIPPED
        elif self._case is not None:
            self._judge(name, attributes)

    def _judge(self, name: str, attributes: dict[str, str]) -> None:
        """An element within a case: the first that is worse than what was said before counts."""
        if name in _FLAKY and self._outcome is not Outcome.FAILED:
            self._outcome = Outcome.FLAKY
        elif name in _FAILURES and self._outcome is not Outcome.FAILED:
            # What failed as it was expected to has run.
            self._outcome = Outcome.PASSED if attributes.get("type") == _EXPECTED else _FAILURES[name]
        else:
            return
        self._message = attributes.get("message") or ""
        self._inside, self._room = [], 0 if self._message else MESSAGE_LIMIT

    def _text(self, text: str) -> None:
        if self._inside is not None and self._room > 0:
            self._inside.append(text[: self._room])
            self._room -= len(text)

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._inside is not None and (name in _FAILURES or name in _FLAKY):
            self._message = self._message or "".join(self._inside)
            self._inside = None
        if name == "testcase" and self._case is not None:
            self._complete.append(self._finished(self._case))
            self._case = None

    def _finished(self, attributes: dict[str, str]) -> TestCase:
        name, group = attributes.get("name", ""), attributes.get("classname", "")
        full = f"{group}.{name}" if group and name and group != name else name or group
        return case(full, self._outcome, seconds=number(attributes.get("time")), message=self._message)

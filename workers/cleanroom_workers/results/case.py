"""Test cases from a guest's words: bounded, of stable names, and without characters that do harm."""

from __future__ import annotations

import hashlib
import math
import re

from cleanroom_recipes.events import MESSAGE_LIMIT, NAME_LIMIT, TestCase
from cleanroom_recipes.model import Outcome

UNNAMED = "(without a name)"
_DIGEST = 16
_LONGEST_SECONDS = 1e9
# ECMA-48 control sequences: colours and cursor movements.
_CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-Z\\-_]")
_RANKS = {Outcome.SKIPPED: 0, Outcome.PASSED: 1, Outcome.FLAKY: 2, Outcome.FAILED: 3}


class BrokenResults(Exception):
    """A result file is not what it seemed to be, or goes beyond a limit; what was read until there counts."""


def case(
    name: str,
    outcome: Outcome,
    *,
    seconds: float | None = None,
    message: str | None = None,
    line: int | None = None,
) -> TestCase:
    """A test case; `line` is its place in the step's log, from 1."""
    return TestCase(stable_name(name), outcome, duration(seconds), harmless(message), line)


def stable_name(text: str) -> str:
    """A name that fits, on one line; one that is too long ends with a digest, so that it stays itself."""
    text = text.strip()
    if len(text) <= NAME_LIMIT and text.isprintable():
        return text or UNNAMED
    shown = _escaped(text[:NAME_LIMIT], keep="")
    if len(text) <= NAME_LIMIT and len(shown) <= NAME_LIMIT:
        return shown
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_DIGEST]
    return f"{shown[: NAME_LIMIT - _DIGEST - 1]}~{digest}"


def harmless(text: str | None) -> str | None:
    """A message that fits, without colours; None where nothing is said."""
    if not text:
        return None
    text = text[: 4 * MESSAGE_LIMIT]
    if not text.isprintable():
        text = _escaped(_CONTROL_SEQUENCE.sub("", text).replace("\r\n", "\n"), keep="\n\t")
    return text.strip()[:MESSAGE_LIMIT] or None


def duration(seconds: float | None) -> float | None:
    """A number of seconds that can be one."""
    if seconds is None or not math.isfinite(seconds) or not 0 <= seconds <= _LONGEST_SECONDS:
        return None
    return seconds


def number(text: str | None) -> float | None:
    """A number as harnesses write it (`1,234.5`); None where it is none."""
    if not text or len(text) > 40:
        return None
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def rank(outcome: Outcome) -> int:
    """How bad an outcome is."""
    return _RANKS.get(outcome, 3)


def together(first: TestCase, second: TestCase) -> TestCase:
    """What two reports about one test come to: the worse outcome, and the first that each part is said."""
    worse, other = (second, first) if rank(second.outcome) > rank(first.outcome) else (first, second)
    return TestCase(
        first.name,
        worse.outcome,
        first.seconds if first.seconds is not None else second.seconds,
        worse.message or (other.message if other.outcome is worse.outcome else None),
        first.line or second.line,
    )


class Said:
    """The lines that belong to a test, as many as a message holds."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._room = MESSAGE_LIMIT

    def add(self, line: str) -> None:
        """One more line."""
        if self._room > 0:
            self._lines.append(line[: self._room])
            self._room -= len(line) + 1

    @property
    def text(self) -> str:
        """All of them."""
        return "\n".join(self._lines)


def _escaped(text: str, *, keep: str) -> str:
    """What does not print as escapes: bidirectional marks, halves of characters, spaces that are none."""
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("ascii", "backslashreplace").decode()
        if ord(character) > 0x7F
        else f"\\x{ord(character):02x}"
        for character in text
    )

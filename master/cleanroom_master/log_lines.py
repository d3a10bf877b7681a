"""Logs by lines: pages of them, searches, and what looks like an error; quick and bounded for logs of any size.

Everything works on blocks of whole lines, about as large as they are read, because Python looks through a block
as fast as it can be decompressed, and through single lines a hundred times slower. A page of lines costs a block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

BLOCK = 1 << 18
# Bytes of a line that are shown; of a line that is longer than some blocks, nobody looks at more than those.
LINE = 4096
# Lines found by a search or as errors that are kept.
FOUND = 100

# A line tells of an error where it has one of these words, and looks there as the expression says. All in lower case.
_ERRORS = {
    b"error": rb"\berrors?\b ?[:!\[(]|\berror\b.{0,40}\bexit",
    b"e: ": rb"^e: ",
    b"fatal": rb"\bfatal\b",
    b"fail": rb"\bfail(ed|ures?)\b(?!: ?0\b)",
    b"traceback (": rb"^traceback \(",
    b"panic": rb"\bpanic\b[: ]",
    b"***": rb"^make(\[\d+\])?: \*\*\*",
    b"not ok ": rb"^not ok \d",
    b"segmentation fault": rb"",
    b"undefined reference": rb"",
    b": no such file or directory": rb"",
    b"not found": rb": (command )?not found$",
    b"core dumped": rb"",
}
_SEEN = {word: re.compile(pattern) for word, pattern in _ERRORS.items()}
# What says of itself that it is none; the first is an option that many lines of builds have.
_OPTION = b"-werror"
_NO_ERROR = re.compile(rb"\b(0|no) (errors?|fail(ed|ures?))|# todo|xfail|without errors?|warning:.*\berror\b")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a log, from 1. `cut`: it is longer than what is shown."""

    number: int
    text: bytes
    cut: bool


@dataclass(frozen=True, slots=True)
class Found:
    """Some lines of many: the first `FOUND`, and how many there are."""

    lines: tuple[Line, ...]
    count: int


Block = tuple[int, bytes]
Place = tuple[int, int]


def blocks(chunks: Iterable[bytes], first: int = 1) -> Iterator[Block]:
    """Whole lines, each block with the number of its first line. `first` is the number of the first of all."""
    number, begun = first, b""
    for chunk in chunks:
        end = chunk.rfind(b"\n") + 1
        if not end:
            # A line without an end: its beginning is enough.
            begun = begun + chunk if len(begun) < BLOCK else begun
            continue
        block = begun + chunk[:end]
        begun = chunk[end:]
        yield number, block
        number += block.count(b"\n")
    if begun:
        yield number, begun


def page(of: Iterable[Block], first: int, count: int, *, room: int = BLOCK) -> list[Line]:
    """Up to `count` lines from line `first` on, as many as have `room` bytes."""
    found: list[Line] = []
    for number, block in of:
        if number + block.count(b"\n") < first:
            continue
        start = _start(block, first - number)
        while start < len(block):
            end = block.find(b"\n", start)
            end = len(block) if end < 0 else end
            line = _line(block, first + len(found), start, end)
            room -= len(line.text)
            if len(found) == count or room < 0:
                return found
            found.append(line)
            start = end + 1
    return found


def search(of: Iterable[Block], text: str) -> Found:
    """The lines that have a text, in upper or lower case."""
    word = text.lower().encode(errors="replace")
    return _found(of, lambda low: _lines_with(low, word))


def errors(of: Iterable[Block]) -> Found:
    """The lines that tell of an error."""
    return _found(of, _lines_with_errors)


def _lines_with_errors(low: bytes) -> Iterator[Place]:
    low = low.replace(_OPTION, b" " * len(_OPTION))
    places = {
        place
        for word, seen in _SEEN.items()
        for place in _lines_with(low, word)
        if seen.search(line := low[place[0] : min(place[1], place[0] + LINE)]) and not _NO_ERROR.search(line)
    }
    return iter(sorted(places))


def _found(of: Iterable[Block], places: Callable[[bytes], Iterator[Place]]) -> Found:
    lines: list[Line] = []
    count = 0
    for number, block in of:
        passed, line_number = 0, number
        for start, end in places(block.lower()):
            count += 1
            if len(lines) < FOUND:
                line_number += block.count(b"\n", passed, start)
                passed = start
                lines.append(_line(block, line_number, start, end))
    return Found(tuple(lines), count)


def _lines_with(block: bytes, word: bytes) -> Iterator[Place]:
    """Begin and end of each line of a block that has a word, in order."""
    place = block.find(word) if word else -1
    while place >= 0:
        end = block.find(b"\n", place)
        end = len(block) if end < 0 else end
        yield block.rfind(b"\n", 0, place) + 1, end
        place = block.find(word, end)


def _start(block: bytes, lines: int) -> int:
    """Where in a block the line begins before which there are so many."""
    start = 0
    for _ in range(lines):
        start = block.find(b"\n", start) + 1
    return start


def _line(block: bytes, number: int, start: int, end: int) -> Line:
    return Line(number, block[start : min(end, start + LINE)], end - start > LINE)

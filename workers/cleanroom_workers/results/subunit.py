"""Subunit, version 2: packets of bytes, each with what is new of one test.

Source: the README of python-subunit, "Protocol version 2". A test that began and never ended has failed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from cleanroom_recipes.events import MESSAGE_LIMIT, TestCase
from cleanroom_recipes.model import Outcome
from cleanroom_workers.results.case import BrokenResults, case, stable_name

_SIGNATURE = 0xB3
_VERSION = 0x2
_PACKET_LIMIT = (1 << 22) - 1
_HEADER = 3
_CHECKSUM = 4
_RUNNING_LIMIT = 10_000
_TEST_ID, _ROUTE, _TIMESTAMP, _TAGS, _FILE, _MIME = 0x800, 0x400, 0x200, 0x80, 0x40, 0x20
_EXISTS = 1
_OUTCOMES = {
    3: Outcome.PASSED,
    4: Outcome.FAILED,  # passed although it was expected to fail
    5: Outcome.SKIPPED,
    6: Outcome.FAILED,
    7: Outcome.PASSED,  # failed as expected
}


def fits(name: str, head: bytes) -> bool:
    """Whether a file is such a stream."""
    return name.endswith(".subunit") or head[:1] == bytes([_SIGNATURE])


def read(stream: IO[bytes]) -> Iterator[TestCase]:
    """The cases of a stream. Raises BrokenResults."""
    running: dict[str, _Running] = {}
    while packet := _packet(stream):
        yield from _told(packet, running)
    for name in running:
        yield case(name, Outcome.FAILED, message="began and did not end")


@dataclass(slots=True)
class _Running:
    """A test that has begun."""

    begun: float | None = None
    said: bytearray = field(default_factory=bytearray)


class _Body:
    """The fields of a packet, one after the other; every length is checked against what is there."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def take(self, count: int) -> bytes:
        """The next bytes. Raises BrokenResults where there are not so many."""
        taken = self._content[self._at : self._at + count]
        if len(taken) != count:
            raise BrokenResults("has a packet whose parts are longer than it")
        self._at += count
        return taken

    def number(self) -> int:
        """A number of one to four bytes; the first two bits say how many."""
        first = self.take(1)[0]
        return int.from_bytes(bytes([first & 0x3F]) + self.take(first >> 6), "big")

    def text(self) -> str:
        """Text with its length before it."""
        return self.take(self.number()).decode(errors="backslashreplace")


def _packet(stream: IO[bytes]) -> tuple[int, _Body] | None:
    """The next packet's flags and fields; None at the end. Raises BrokenResults."""
    header = stream.read(_HEADER)
    if not header:
        return None
    if len(header) < _HEADER or header[0] != _SIGNATURE or header[1] >> 4 != _VERSION:
        raise BrokenResults("is no stream of subunit, version 2")
    size = stream.read(1)
    size += stream.read(size[0] >> 6) if size else b""
    length = int.from_bytes(bytes([size[0] & 0x3F]) + size[1:], "big") if size else 0
    left = length - len(header) - len(size)
    if not _CHECKSUM <= left <= _PACKET_LIMIT:
        raise BrokenResults("has a packet of an impossible length")
    rest = stream.read(left)
    if len(rest) != left:
        raise BrokenResults("ends within a packet")
    if zlib.crc32(header + size + rest[:-_CHECKSUM]) != int.from_bytes(rest[-_CHECKSUM:], "big"):
        raise BrokenResults("has a packet with a wrong checksum")
    return int.from_bytes(header[1:], "big"), _Body(rest[:-_CHECKSUM])


def _told(packet: tuple[int, _Body], running: dict[str, _Running]) -> Iterator[TestCase]:
    """What a packet completes."""
    flags, body = packet
    at = int.from_bytes(body.take(4), "big") + body.number() / 1e9 if flags & _TIMESTAMP else None
    if not flags & _TEST_ID:
        return
    name = stable_name(body.text())
    if flags & _TAGS:
        for _ in range(body.number()):
            body.text()
    if flags & _MIME:
        body.text()
    test = running.get(name)
    if test is None:
        test = _Running(at)
        if len(running) >= _RUNNING_LIMIT:
            raise BrokenResults(f"has more than {_RUNNING_LIMIT} tests that run at the same time")
        running[name] = test
    if flags & _FILE:
        body.text()
        test.said += body.take(body.number())[: max(4 * MESSAGE_LIMIT - len(test.said), 0)]
    outcome = _OUTCOMES.get(flags & 0x7)
    if outcome is not None:
        del running[name]
        seconds = at - test.begun if at is not None and test.begun is not None else None
        yield case(name, outcome, seconds=seconds, message=test.said.decode(errors="backslashreplace"))
    elif flags & 0x7 == _EXISTS:
        # A test that exists, as a list of tests says.
        del running[name]

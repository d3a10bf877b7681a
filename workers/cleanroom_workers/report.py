"""What a host says of itself: a small file that its Buildbot worker tells the master whenever that asks.

A host has no other way to the record, and needs none: the worker sends the files of its directory `info` anyway.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from cleanroom_workers.pool import READY, memory
from cleanroom_workers.records import GuestRecord

# Its name in that directory, and in what the master gets.
NAME = "cleanroom"
# States of guests that somebody has, see `GuestRecord`.
_AT_WORK = ("starting", "running")


class Reporting(Protocol):
    """What a report needs of the host."""

    def recorded(self) -> Sequence[GuestRecord]:
        """The records of all guests."""

    def known_isolations(self) -> tuple[str, ...]:
        """The isolations that were seen to work."""


class Report:
    """Keeps the file as the host is."""

    def __init__(self, host: Reporting, directory: Path, places: int) -> None:
        """`places` is how many guests may be at work at the same time."""
        self._host = host
        self._file = directory / NAME
        self._places = places
        self._written = ""

    def tend(self) -> Iterator[str]:
        """Write the file anew if something is otherwise; there is nothing to say of that."""
        states = [record.state for record in self._host.recorded()]
        content = json.dumps(
            {
                "isolations": self._host.known_isolations(),
                "processors": os.cpu_count() or 1,
                "memory_mib": memory("MemTotal"),
                "places": self._places,
                "ready": states.count(READY),
                "running": sum(state in _AT_WORK for state in states),
            },
            sort_keys=True,
        )
        if content != self._written:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._file.with_name(f".{NAME}.{os.getpid()}")
            fresh.write_text(content, encoding="utf-8")
            fresh.replace(self._file)
            self._written = content
        yield from ()

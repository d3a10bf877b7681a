"""What the services of this machine logged: found by what it is about, in the order in which it happened."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cleanroom_base import log_records
from cleanroom_base.errors import InputError
from cleanroom_base.log_records import Record
from cleanroom_base.settings import Settings
from cleanroom_master.places import Places

# Names of guests and correlation ids consist of these.
_WORD = re.compile(r"[A-Za-z0-9-]+")
# Of a line that is longer no record can be made.
_LINE = 1 << 20


def files(settings: Settings) -> list[Path]:
    """The logs of this machine's services, each after the older one that was set aside when it had grown."""
    run, beside = Places(settings).run, settings.state / "logs" / "services"
    current = sorted([*run.glob("*.log"), *beside.glob("*.log")])
    return [file for log in current for file in (log.with_name(f"{log.name}.1"), log) if file.is_file()]


def of_release(sources: Iterable[Path], correlation: str) -> list[Record]:
    """The records about one ref event, in order of time; standard input is the source `-`.

    Those that have its correlation id; those of programs that know no fields but name it; and those about the guests
    that were lent to it, of which each serves one phase and no other. Raises InputError.
    """
    kept = [_Source.of(source) for source in sources]
    found = {line: record for source in kept for line, record in source.naming({correlation})}
    guests = {str(guest) for record in found.values() if (guest := record.fields.get("guest")) is not None}
    found |= {line: record for source in kept for line, record in source.naming(guests)}
    return sorted(found.values(), key=lambda record: record.at)


def latest(source: Path, most: int) -> str:
    """The end of a log as it is, of at most so many bytes, beginning with a whole line."""
    with source.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - most))
        text = file.read(most).decode(errors="replace")
    return text if size <= most else text.partition("\n")[2]


class _Source:
    """A log that is read more than once."""

    def __init__(self, file: Path, kept: list[bytes] | None) -> None:
        self._file = file
        self._kept = kept

    @classmethod
    def of(cls, file: Path) -> _Source:
        """A file, or what standard input has."""
        return cls(file, sys.stdin.buffer.readlines() if str(file) == "-" else None)

    def naming(self, words: set[str]) -> Iterator[tuple[tuple[Path, int], Record]]:
        """The records in which one of some words stands, each with its place."""
        wanted = [word.encode() for word in words]
        with self._lines() as lines:
            for number, line in enumerate(lines):
                if len(line) > _LINE or not any(word in line for word in wanted):
                    continue
                record = log_records.read(line.decode(errors="replace"))
                if record is not None and words & _words(record):
                    yield (self._file, number), record

    @contextmanager
    def _lines(self) -> Iterator[Iterable[bytes]]:
        if self._kept is not None:
            yield self._kept
            return
        try:
            with self._file.open("rb") as file:
                yield file
        except OSError as error:
            raise InputError(f"cannot read {self._file}: {error.strerror}") from error


def _words(record: Record) -> set[str]:
    if "correlation" in record.fields:
        # It says itself to what it belongs; what it quotes is of others.
        return {str(record.fields["correlation"]), str(record.fields.get("guest"))}
    return set(_WORD.findall(record.message)) | {str(value) for value in record.fields.values()}

"""The logs of steps: compressed files on disk, named by the hash of what they say.

A log is written while its step runs (so that what a lost worker still said is kept), and sealed when it ends.
Sealed logs are never changed; equal logs are one file. Path: logs/ab/abcdef....gz. A long one is compressed in members
(RFC 1952, 2.2), with an index beside it that says where lines begin: its end is read as quickly as its beginning.
"""

from __future__ import annotations

import bisect
import contextlib
import gzip
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO
from weakref import WeakValueDictionary

from cleanroom_base.errors import InputError
from cleanroom_master import log_lines, stores
from cleanroom_master.log_lines import BLOCK

_DIGEST = re.compile(r"[0-9a-f]{64}")
# Bytes of a line that tells of an error.
_EXCERPT = 300
# Indexes that a process remembers; that of a log of 200 MB takes 200 kB.
_INDEXES = 32


@dataclass(frozen=True, slots=True)
class SealedLog:
    """A complete log: SHA-256 of its text and its length in bytes, both before compression."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Index:
    """Where things are in a long log.

    `members` are offsets in the compressed file with the line that begins there; `errors` the first lines that tell of
    errors, each with how it begins.
    """

    lines: int
    members: tuple[tuple[int, int], ...]
    errors: tuple[tuple[int, str], ...]
    error_count: int

    def before(self, line: int) -> tuple[int, int]:
        """The last member that begins at or before a line: its offset, and its first line."""
        return self.members[bisect.bisect_right(self.members, line, key=lambda member: member[1]) - 1]


class LogStore:
    """All sealed logs of an installation."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._growing = directory / "growing"
        # Who gives up a log without sealing it, or cannot, forgets it: then it is left.
        self._writing: WeakValueDictionary[Path, OpenLog] = WeakValueDictionary()

    @property
    def directory(self) -> Path:
        """Where they are."""
        return self._directory

    def open(self, name: str) -> OpenLog:
        """Begin a log; `name` tells it from others that are being written, and is safe as a file name."""
        self._growing.mkdir(parents=True, exist_ok=True)
        log = OpenLog(self.growing(name), self)
        self._writing[log.path] = log
        log.begin()
        return log

    def left(self) -> dict[str, Path]:
        """The logs that nobody writes any more, by their (safe) names: a master was killed, or the disk was full."""
        there = sorted(self._growing.glob("*.log"))
        return {path.stem: path for path in there if (log := self._writing.get(path)) is None or log.given_up}

    def seal_left(self, path: Path) -> SealedLog:
        """Seal a log that was left."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return self.seal(path, digest)

    def seal(self, path: Path, digest: str) -> SealedLog:
        """Compress a log to its final place (written beside it and renamed), and remove the growing file."""
        size = path.stat().st_size
        place = self.path(digest)
        if not stores.found(self._directory, place):
            place.parent.mkdir(parents=True, exist_ok=True)
            if size > BLOCK:
                # It is found only together with its log, so it comes first.
                with path.open("rb") as source:
                    found = log_lines.errors(log_lines.blocks(_pieces(source)))
            with path.open("rb") as source, _written(place) as sink:
                lines, members = _compress(source, sink)
                if size > BLOCK:
                    told = tuple((line.number, line.text[:_EXCERPT].decode(errors="replace")) for line in found.lines)
                    index = Index(lines, tuple(members), told, found.count)
                    with _written(place.with_suffix(".index")) as file:
                        file.write(json.dumps(asdict(index)).encode())
        path.unlink()
        return SealedLog(digest, size)

    def index(self, sha256: str) -> Index | None:
        """The index of a sealed log; None for one that is too short to need it."""
        try:
            return _index(self.path(sha256).with_suffix(".index"))
        except FileNotFoundError:
            return None

    def chunks(self, sha256: str, offset: int = 0) -> Iterator[bytes]:
        """The text of a sealed log in pieces, from a member on. Raises InputError when there is none."""
        try:
            raw = self.path(sha256).open("rb")
        except FileNotFoundError:
            raise _gone(sha256) from None
        with raw:
            raw.seek(offset)
            with gzip.GzipFile(fileobj=raw) as file:
                yield from _pieces(file)

    def growing(self, name: str) -> Path:
        """Where a log is while its step runs; see `log_name`."""
        return self._growing / f"{safe(name)}.log"

    def path(self, sha256: str) -> Path:
        """Where a sealed log is. Raises InputError for what is no digest."""
        if not _DIGEST.fullmatch(sha256):
            raise InputError(f"{sha256!r} is not the digest of a log")
        return self._directory / sha256[:2] / f"{sha256}.gz"

    def read(self, sha256: str) -> bytes:
        """The text of a sealed log. Raises InputError when there is none."""
        try:
            with gzip.open(self.path(sha256)) as file:
                return file.read()
        except FileNotFoundError:
            raise _gone(sha256) from None


class OpenLog:
    """A log that is being written. `given_up`: it could not be sealed."""

    def __init__(self, path: Path, store: LogStore) -> None:
        self.path = path
        self.given_up = False
        self._store = store
        self._digest = hashlib.sha256()

    def begin(self) -> None:
        """Make the file."""
        self._file: IO[bytes] = self.path.open("wb", buffering=0)

    def write(self, text: str) -> None:
        """Add to the end."""
        content = text.encode(errors="backslashreplace")
        self._file.write(content)
        self._digest.update(content)

    def seal(self) -> SealedLog:
        """Finish: the log gets its final place."""
        self._file.close()
        try:
            return self._store.seal(self.path, self._digest.hexdigest())
        except BaseException:
            self.given_up = True
            raise


def _gone(sha256: str) -> InputError:
    return InputError(f"there is no log {sha256}", hint="logs of what is not published go after retention.logs_days")


def log_name(attempt: int, phase: str, replay: int, step: str) -> str:
    """How the log of a step is called while it grows. A step's name begins with no `-`, so a replay's is no other's."""
    return f"{attempt}-{phase}-{f'-{replay}-' if replay else ''}{step}"


def safe(name: str) -> str:
    """A name as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", name)


@lru_cache(maxsize=_INDEXES)
def _index(file: Path) -> Index:
    """The index in a file, which never changes."""
    content = json.loads(file.read_bytes())
    members = tuple((int(offset), int(line)) for offset, line in content["members"])
    errors = tuple((int(line), str(text)) for line, text in content["errors"])
    return Index(content["lines"], members, errors, content["error_count"])


@contextlib.contextmanager
def _written(place: Path) -> Iterator[IO[bytes]]:
    """A file that is written beside its place, and is there once it is complete."""
    fresh = place.with_name(f"{place.name}.{os.getpid()}.new")
    try:
        with fresh.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(place)
    finally:
        fresh.unlink(missing_ok=True)


def _compress(source: IO[bytes], sink: IO[bytes]) -> tuple[int, list[tuple[int, int]]]:
    """Compress in members; returns how many lines there are, and the members at which one begins."""
    lines, members, begins = 0, [], True
    for piece in _whole_lines(source):
        if begins:
            members.append((sink.tell(), lines + 1))
        # No name and no time in the header: equal logs become equal files.
        with gzip.GzipFile("", "wb", 6, sink, mtime=0) as member:
            member.write(piece)
        lines += piece.count(b"\n")
        begins = piece.endswith(b"\n")
    return lines + (not begins), members or [(0, 1)]


def _whole_lines(source: IO[bytes]) -> Iterator[bytes]:
    """Pieces that end with a line, where lines are not longer than pieces."""
    for piece in _pieces(source):
        yield piece + source.readline(BLOCK) if not piece.endswith(b"\n") else piece


def _pieces(source: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    return iter(lambda: source.read(BLOCK), b"")

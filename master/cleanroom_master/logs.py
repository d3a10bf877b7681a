"""The logs of steps: compressed files on disk, named by the hash of what they say.

A log is written while its step runs (so that what a lost worker still said is kept), and sealed when it ends.
Sealed logs are never changed; equal logs are one file. Path: logs/ab/abcdef....gz.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cleanroom_base.errors import InputError

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SealedLog:
    """A complete log: SHA-256 of its text and its length in bytes, both before compression."""

    sha256: str
    size: int


class LogStore:
    """All sealed logs of an installation."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._growing = directory / "growing"

    def open(self, name: str) -> OpenLog:
        """Begin a log; `name` tells it from others that are being written, and is safe as a file name."""
        self._growing.mkdir(parents=True, exist_ok=True)
        return OpenLog(self._growing / f"{safe(name)}.log", self)

    def left(self) -> dict[str, Path]:
        """The logs that nobody writes any more after a master was killed, by their (safe) names."""
        return {path.stem: path for path in sorted(self._growing.glob("*.log"))}

    def seal_left(self, path: Path) -> SealedLog:
        """Seal a log that was left."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return self.seal(path, digest)

    def seal(self, path: Path, digest: str) -> SealedLog:
        """Compress a log to its final place (written beside it and renamed), and remove the growing file."""
        size = path.stat().st_size
        place = self.path(digest)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            fresh = place.with_name(f"{place.name}.{os.getpid()}.new")
            try:
                with path.open("rb") as source, fresh.open("wb") as raw:
                    # No name and no time in the header: equal logs become equal files.
                    with gzip.GzipFile("", "wb", 6, raw, mtime=0) as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)
                    raw.flush()
                    os.fsync(raw.fileno())
                fresh.rename(place)
            finally:
                fresh.unlink(missing_ok=True)
        path.unlink()
        return SealedLog(digest, size)

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
            raise InputError(f"there is no log {sha256}") from None


class OpenLog:
    """A log that is being written."""

    def __init__(self, path: Path, store: LogStore) -> None:
        self._path = path
        self._store = store
        self._file: IO[bytes] = path.open("wb", buffering=0)
        self._digest = hashlib.sha256()

    def write(self, text: str) -> None:
        """Add to the end."""
        content = text.encode(errors="backslashreplace")
        self._file.write(content)
        self._digest.update(content)

    def seal(self) -> SealedLog:
        """Finish: the log gets its final place."""
        self._file.close()
        return self._store.seal(self._path, self._digest.hexdigest())


def log_name(attempt: int, phase: str, replay: int, step: str) -> str:
    """How the log of a step is called while it grows. A step's name begins with no `-`, so a replay's is no other's."""
    return f"{attempt}-{phase}-{f'-{replay}-' if replay else ''}{step}"


def safe(name: str) -> str:
    """A name as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", name)

"""What stores of files have in common whose names are hashes of their content: that some files go, and that none goes
under the hands of somebody who just brought the same content again.

Who finds a file that is there already touches it; who removes one looks at its time. Both do so under one lock, so a
file that was found is not removed before its time is old again, and by then a row names it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cleanroom_base.errors import TimedOut
from cleanroom_workers.locks import locked, opened

_LOCK = ".lock"
_BACKUP_LOCK = "run/backup.lock"
_TIMEOUT = 60.0
_PAUSE = 0.1
_NAME = re.compile(r"([0-9a-f]{64})(\.[a-z]+)?")
_LEFT = re.compile(r".*\.[0-9]+\.new")


@dataclass(frozen=True)
class Stored:
    """The files of one content: bytes on the disk, and when they came or were last brought (seconds since 1970)."""

    sha256: str
    files: tuple[Path, ...]
    size: int
    at: float


def found(directory: Path, file: Path) -> bool:
    """Whether a file of a store is there; if it is, it is as good as new."""
    with locked(directory / _LOCK, timeout=_TIMEOUT):
        try:
            os.utime(file)
        except FileNotFoundError:
            return False
        return True


def contents(directory: Path, *, before: float) -> Iterator[list[Stored]]:
    """What came before a time, a few hundred at a time in a large store: one list for each of its directories.

    What a process left that was killed while it wrote is among it, under the name that it has.
    """
    for inner in sorted(directory.glob("[0-9a-f][0-9a-f]")):
        alike: dict[str, list[tuple[Path, os.stat_result]]] = {}
        for file in inner.iterdir():
            match = _NAME.fullmatch(file.name)
            name = match[1] if match else file.name if _LEFT.fullmatch(file.name) else None
            with contextlib.suppress(FileNotFoundError):
                if name is not None:
                    alike.setdefault(name, []).append((file, file.stat()))
        found = [_stored(name, files) for name, files in sorted(alike.items())]
        if old := [one for one in found if one.at < before]:
            yield old


@contextlib.contextmanager
def no_removal(state: Path) -> Iterator[None]:
    """Keep files of a state from being removed, while they are copied: one backup at a time, and no remover beside it.

    Raises TimedOut.
    """
    deadline = time.monotonic() + _TIMEOUT
    with opened(state / _BACKUP_LOCK) as lock:
        while not _try(lock, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise TimedOut(
                    "files are being removed, or another backup is made", hint="try again when that has ended"
                )
            time.sleep(_PAUSE)
        yield


@contextlib.contextmanager
def removal(state: Path) -> Iterator[bool]:
    """Tells whether files of a state may be removed: not while they are copied for a backup. Removers share it."""
    with opened(state / _BACKUP_LOCK) as lock:
        yield _try(lock, fcntl.LOCK_SH)


def _try(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stored(name: str, files: list[tuple[Path, os.stat_result]]) -> Stored:
    # What is found by its name goes first: an index without its log is found by nobody.
    ordered = sorted(files, key=lambda one: (one[0].suffix == ".index", one[0].name))
    size = sum(state.st_blocks * 512 for _, state in files)
    return Stored(name, tuple(file for file, _ in ordered), size, max(state.st_mtime for _, state in files))


def remove(directory: Path, one: Stored, *, before: float) -> bool:
    """Remove a content, unless somebody brought it again since; says whether it went."""
    with locked(directory / _LOCK, timeout=_TIMEOUT):
        with contextlib.suppress(FileNotFoundError):
            if max(file.stat().st_mtime for file in one.files) >= before:
                return False
        for file in one.files:
            file.unlink(missing_ok=True)
    return True

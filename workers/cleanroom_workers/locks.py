"""Locks between processes: files that are held by the kernel for whoever has them open, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from cleanroom_base.errors import TimedOut

_PAUSE = 0.01


@contextlib.contextmanager
def locked(file: Path, *, timeout: float) -> Iterator[None]:
    """Hold the lock `file` alone. Raises TimedOut after `timeout` seconds."""
    file.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    with file.open("ab") as lock:
        while not _try(lock.fileno()):
            if time.monotonic() > deadline:
                raise TimedOut(f"another process has been holding {file} for {timeout:.0f} s")
            time.sleep(_PAUSE)
        yield


@contextlib.contextmanager
def attempted(file: Path) -> Iterator[bool]:
    """Try to hold the lock `file` without waiting; tells whether it is held."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as lock:
        yield _try(lock.fileno())


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

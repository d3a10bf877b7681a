"""Locks between processes: files that are held by the kernel for whoever has them open, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cleanroom_base.errors import TimedOut

_PAUSE = 0.01


@contextlib.contextmanager
def locked(file: Path, *, timeout: float) -> Iterator[None]:
    """Hold the lock `file` alone. Raises TimedOut after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    with opened(file) as lock:
        while not _try(lock):
            if time.monotonic() > deadline:
                raise TimedOut(f"another process has been holding {file} for {timeout:.0f} s")
            time.sleep(_PAUSE)
        yield


@contextlib.contextmanager
def attempted(file: Path) -> Iterator[bool]:
    """Try to hold the lock `file` without waiting; tells whether it is held."""
    with opened(file) as lock:
        yield _try(lock)


@contextlib.contextmanager
def opened(file: Path) -> Iterator[int]:
    """The descriptor of a lock, which is made where there is none.

    For reading, which is enough to hold it: whoever came first made it, and services have users of their own.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

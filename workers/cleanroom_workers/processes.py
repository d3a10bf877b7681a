"""Which process is which: a number alone is not enough, because numbers are used again."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from cleanroom_base.run import Process

_PAUSE = 0.02

# Programs that this process started and that may outlive it; kept to be reaped when they end before.
_kept: list[Process] = []


def keep(process: Process) -> None:
    """Let a program that was started go on for as long as it will, perhaps longer than this process."""
    _kept[:] = [other for other in _kept if other.poll() is None]
    _kept.append(process)


def started(process: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it does not run (a zombie does not).

    Source: fields 3 and 22 of /proc/PID/stat, proc(5).
    """
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        # The second field, the program's name, may hold spaces and brackets.
        fields = status.rsplit(")", 1)[1].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def end(process: int, *, since: int, timeout: float) -> None:
    """Ask a process that started at `since` to end, and kill it when it has not after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    for how in (signal.SIGTERM, signal.SIGKILL):
        if started(process) == since:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, how)
        while started(process) == since and time.monotonic() < deadline:
            time.sleep(_PAUSE)
    _kept[:] = [other for other in _kept if other.poll() is None]

"""Processes that are kept running: each is started, and started again when it ends, with a pause that doubles.

What the processes do is not known here; whoever tends them says which there are.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cleanroom_base import run

GRACE = 20.0
_LONGEST_PAUSE = 30.0
# A service that ran this long was well; its next restart is quick again.
STEADY = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """One process: its name, how it is started, and the address at which it answers once it is ready."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    address: tuple[str, int] | None = None


@dataclass
class Tended:
    """A service and what became of it: `since` is by the monotonic clock."""

    service: Service
    process: run.Process | None = None
    since: float = 0.0
    restarts: int = 0
    answered: bool = False
    next_start: float = 0.0

    def tend(self, log: Path | None, *, temporary: Path | None = None) -> None:
        """Start it if it does not run, unless it has just failed: then after a pause that doubles.

        What it prints goes to the end of `log`, or (None) where this process prints. `temporary` is its own directory
        for temporary files, emptied before it starts: what a killed process left there is nobody's. Raises OSError.
        """
        now = time.monotonic()
        if self.process is not None:
            if self.process.poll() is None:
                if now - self.since > STEADY:
                    self.restarts = 0
                return
            self.next_start = now + min(0.5 * 2**self.restarts, _LONGEST_PAUSE)
            told = (self.service.name, self.process.pid, self.process.returncode)
            _log.error("%s (process %d) ended with status %d, and is started again", *told)
            self.restarts += 1
            self.process = None
        if now >= self.next_start:
            place = {}
            if temporary is not None:
                _make_empty(temporary)
                place["TMPDIR"] = str(temporary)
            self.process = run.start(
                self.service.command,
                log=log,
                environment={**self.service.environment, **place, "PYTHONUNBUFFERED": "1"},
                end_with_parent=True,
                inherit=log is None,
            )
            self.since = now
            self.answered = False
            _log.info("%s is process %d", self.service.name, self.process.pid)


def _make_empty(directory: Path) -> None:
    """A directory with nothing in it, as /tmp for all users: tools that read what comes from outside run as another."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)
    for made in (directory.parent, directory):
        made.mkdir(exist_ok=True)
        made.chmod(0o755)
    directory.chmod(0o1777)


def end_all(tended: Iterable[Tended], *, grace: float = GRACE) -> None:
    """End all of them together: asked first, and after `grace` seconds killed, each with what it started."""
    alive = [one.process for one in tended if one.process is not None]
    for process in alive:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    for process in alive:
        run.wait(process, deadline - time.monotonic())
        run.kill_group(process)

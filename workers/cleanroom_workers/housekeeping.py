"""What a worker's host keeps no more: work directories of builds that nobody runs here any more, and cached packages.

Images, layers, snapshots and guests are looked after at every look of the pool (see Host.reap): of them nothing is
left for here. Whatever goes is fetched or made again when it is needed, so this may be killed at any time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cleanroom_base.occasion import Occasion
from cleanroom_base.run import Process, kill_group, start
from cleanroom_base.settings import Settings

_DAY = 86_400.0


@dataclass(frozen=True)
class Removed:
    """What went, or would go: so many of a kind, and their bytes on the disk."""

    what: str
    number: int
    size: int
    why: str


def keep_house(settings: Settings, *, remove: bool) -> list[Removed]:
    """Remove what was not used for `retention.worker_days`, or only say what that is."""
    days = settings.number("retention.worker_days")
    if not days:
        return []
    before = time.time() - days * _DAY
    why = f"not used for retention.worker_days = {days:g}"
    return [
        _gone("work directories", _unused_builds(settings.state / "worker", before), why, remove=remove),
        _gone("cached packages", _unread(settings.state / "proxy/cache", before), why, remove=remove),
    ]


def _gone(what: str, found: Iterator[Path], why: str, *, remove: bool) -> Removed:
    number, size = 0, 0
    for path in found:
        number, size = number + 1, size + _size(path)
        if remove and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif remove:
            path.unlink(missing_ok=True)
    return Removed(what, number, size, why)


def _unused_builds(directory: Path, before: float) -> Iterator[Path]:
    """The directories of Buildbot's builders in which no build began since a time: each has its `build` made anew."""
    for build in sorted(directory.glob("*/build")):
        if build.stat().st_mtime < before:
            yield build.parent


def _unread(directory: Path, before: float) -> Iterator[Path]:
    """The files of a cache that nobody brought or read since a time. A file system notes reads once a day, or never;
    what it never notes is fetched again.
    """
    for inside, directories, files in os.walk(directory):
        # What apt-cacher-ng keeps for itself.
        directories[:] = [name for name in directories if not name.startswith("_")]
        for name in sorted(files):
            path = Path(inside, name)
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                if max(state.st_mtime, state.st_atime, state.st_ctime) < before:
                    yield path


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_blocks * 512
    return sum(_size(Path(inside, name)) for inside, _, files in os.walk(path) for name in files)


class Housekeeper:
    """Has a process of its own do that when it is time, which gives way to others."""

    def __init__(self, settings: Settings) -> None:
        self._occasion = Occasion(settings.number("retention.every"), settings.state / "run/housekeeping-host")
        self._log = settings.state / "logs/services/housekeeping.log"
        self._running: Process | None = None

    def tend(self) -> Iterator[str]:
        """See to it that it is being done, and say in words what was done."""
        if self._running is not None:
            if self._running.poll() is None:
                return
            self._running = None
        if self._occasion.due():
            self._running = start(["nice", "cleanroom-worker", "housekeeping"], log=self._log, end_with_parent=True)
            yield "housekeeping"

    def end(self) -> None:
        """End what is being done; it is safe to be killed."""
        if self._running is not None:
            kill_group(self._running)

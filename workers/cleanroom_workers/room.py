"""Whether there is room on the disk for what guests are made of."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import Settings

# With less free disk than this, in bytes, whatever fails may fail for want of it.
_EXHAUSTED = 64 << 20
# Between two looks, in seconds.
_PAUSE = 2.0


class DiskFull(InfrastructureError):
    """There is too little free disk to start a guest."""


@dataclass(frozen=True, slots=True)
class Room:
    """The free space of the state's file system, and below what nothing new is begun; all in bytes."""

    free: int
    total: int
    least: int

    @property
    def low(self) -> bool:
        """Whether nothing new is begun."""
        return self.free < self.least

    @property
    def words(self) -> str:
        """That for people."""
        return f"{self.free >> 20} MiB are free of {self.total >> 20}; below {self.least >> 20} nothing new is begun"


def look(settings: Settings) -> Room:
    """The room that there is now."""
    place = settings.state
    while not place.exists():
        place = place.parent
    usage = shutil.disk_usage(place)
    return Room(usage.free, usage.total, settings.least_free(usage.total))


def wait(settings: Settings, timeout: float, *, pause: float = _PAUSE) -> bool:
    """Wait up to `timeout` seconds until there is room; False if there is none then."""
    deadline = time.monotonic() + timeout
    while look(settings).low:
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def check(settings: Settings, more: int = 0) -> None:
    """Raise DiskFull unless there is room to start a guest, and for so many bytes more."""
    found = look(settings)
    least = (found.least + more) >> 20
    if found.free >> 20 < least:
        raise DiskFull(
            f"{found.free >> 20} MiB are free below {settings.state}, {least} are needed",
            hint="make room ('cleanroom housekeeping' shows what can go), or lower storage.minimum_free",
        )


def exhausted(directory: Path) -> bool:
    """Whether there is so little free disk that what failed in `directory` may have failed for that."""
    return shutil.disk_usage(directory).free < _EXHAUSTED

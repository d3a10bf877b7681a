"""Whether there is room on the disk for what guests are made of."""

from __future__ import annotations

import shutil
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import Settings

# With less free disk than this, in bytes, whatever fails may fail for want of it.
_EXHAUSTED = 64 << 20


class DiskFull(InfrastructureError):
    """There is too little free disk to start a guest."""


def check(settings: Settings, more: int = 0) -> None:
    """Raise DiskFull unless there is room to start a guest, and for so many bytes more."""
    least = settings.whole("storage.minimum_free") + (more >> 20)
    free = shutil.disk_usage(settings.state).free >> 20
    if free < least:
        raise DiskFull(
            f"{free} MiB are free below {settings.state}, {least} are needed",
            hint="make room, or lower storage.minimum_free",
        )


def exhausted(directory: Path) -> bool:
    """Whether there is so little free disk that what failed in `directory` may have failed for that."""
    return shutil.disk_usage(directory).free < _EXHAUSTED

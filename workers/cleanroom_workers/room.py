"""Whether there is room on the disk for what guests are made of."""

from __future__ import annotations

import shutil

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import Settings


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

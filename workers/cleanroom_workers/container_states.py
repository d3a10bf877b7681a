"""States of a container: copies of its own files, made while its file system stands still.

Its processes are no part of it: a container that goes back is started from these files.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.run import run
from cleanroom_workers import container, groups, mounts
from cleanroom_workers.libvirt_access import Libvirt

_COPY_TIMEOUT = 600.0
_END_TIMEOUT = 10.0


class ContainerStates:
    """The states of one container."""

    def __init__(self, libvirt: Libvirt, name: str, home: Path, first_user: int) -> None:
        self._libvirt = libvirt
        self._name = name
        self._home = home
        self._first_user = first_user
        self._disk = home / "disk"

    @property
    def size(self) -> int:
        """The bytes of its files' file system that were ever used."""
        return self._disk.stat().st_blocks * 512

    def keep(self, name: str) -> None:
        """Copy its files, which stand still meanwhile. Raises CommandError."""
        with mounts.frozen(self._home / "store"):
            _copy(self._disk, self._file(name))

    def prepare(self, name: str) -> None:
        """Copy the files that are to take the place of its own. Raises CommandError."""
        _copy(self._file(name), self._next(name))

    def roll_back(self, name: str) -> None:
        """End all its processes, exchange its files, and start it. Raises InfrastructureError."""
        keeper = self._libvirt.process(self._name)
        first = container.Container().first_process(self._libvirt, self._name)
        if keeper is None or first is None:
            raise InfrastructureError(f"the container {self._name} has ended")
        processes = groups.bound(self._name, keeper)
        os.kill(first, signal.SIGKILL)
        self._libvirt.wait_for_end(self._name, _END_TIMEOUT)
        groups.remove(self._name)
        mounts.unmount(self._home / "root")
        mounts.abandon(self._home / "store")
        self._next(name).replace(self._disk)
        container.mount_root(self._home, self._first_user)
        if groups.separate():
            groups.make(self._name, processes)
        self._libvirt.start_again(self._name)
        again = self._libvirt.process(self._name)
        if again is None:
            raise InfrastructureError(f"the container {self._name} ended at once")
        if not groups.separate():
            groups.limit(again, processes)

    def remove(self, name: str) -> None:
        """Remove the copy, and what a rollback that was broken off made of it."""
        for file in (self._file(name), self._next(name)):
            file.unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self._home / "states" / f"{name}.disk"

    def _next(self, name: str) -> Path:
        return self._home / "states" / f"{name}.next"


def _copy(source: Path, destination: Path) -> None:
    """Copy a file with its holes, or have nothing there."""
    try:
        run(["cp", "--sparse=auto", "--reflink=auto", "--", source, destination], timeout=_COPY_TIMEOUT)
    except BaseException:
        destination.unlink(missing_ok=True)
        raise

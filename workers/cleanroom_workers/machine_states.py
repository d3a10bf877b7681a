"""States of a virtual machine: QEMU's own snapshots, memory and disk together, inside the machine's disk.

The machine goes back without being started anew. Source: QEMU's QMP reference, snapshot-save and the jobs.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

from cleanroom_base.errors import InfrastructureError, TimedOut
from cleanroom_workers.libvirt_access import Libvirt

_TIMEOUT = 600.0
_PAUSE = 0.02


class MachineStates:
    """The states of one machine."""

    def __init__(self, libvirt: Libvirt, name: str, home: Path) -> None:
        self._libvirt = libvirt
        self._name = name
        self._home = home

    @property
    def size(self) -> int:
        """The bytes of its whole memory; what was never used of it is not written."""
        return self._libvirt.memory(self._name)

    def keep(self, name: str) -> None:
        """Keep memory and disk; the machine stands still meanwhile. Raises InfrastructureError."""
        self.remove(name)
        # A machine that was restored leaves out memory in files when it loads its state.
        capability = {"capability": "x-ignore-shared", "state": False}
        self._libvirt.command(self._name, "migrate-set-capabilities", capabilities=[capability])
        disk = self._disk()["node-name"]
        self._do("snapshot-save", tag=name, vmstate=disk, devices=[disk])

    def prepare(self, name: str) -> None:
        """Nothing takes time."""

    def roll_back(self, name: str) -> None:
        """Load memory and disk. Raises InfrastructureError."""
        disk = self._disk()["node-name"]
        self._do("snapshot-load", tag=name, vmstate=disk, devices=[disk])

    def remove(self, name: str) -> None:
        """Forget a state, also one that nobody saw to its end."""
        disk = self._disk()
        if name in {snapshot["name"] for snapshot in disk["image"].get("snapshots", ())}:
            self._do("snapshot-delete", tag=name, devices=[disk["node-name"]])

    def _disk(self) -> dict[str, Any]:
        """What QEMU knows about the machine's one disk."""
        own = str(self._home / "disk.qcow2")
        for block in self._libvirt.answers(self._name, "query-block"):
            inserted: dict[str, Any] = block.get("inserted") or {}
            if inserted.get("file") == own:
                return inserted
        raise InfrastructureError(f"{self._name} has no disk {own}")

    def _do(self, execute: str, **arguments: object) -> None:
        """Have QEMU do something that takes its time, and wait for the end of it."""
        job = f"cleanroom-{secrets.token_hex(4)}"
        words: dict[str, Any] = {"job-id": job, **arguments}
        self._libvirt.command(self._name, execute, **words)
        deadline = time.monotonic() + _TIMEOUT
        while (found := self._job(job))["status"] != "concluded":
            if time.monotonic() > deadline:
                raise TimedOut(f"{execute} of {self._name} was not done within {_TIMEOUT:.0f} s")
            time.sleep(_PAUSE)
        self._libvirt.command(self._name, "job-dismiss", id=job)
        if "error" in found:
            raise InfrastructureError(f"QEMU did not {execute} for {self._name}: {found['error']}")

    def _job(self, job: str) -> dict[str, Any]:
        for found in self._libvirt.answers(self._name, "query-jobs"):
            if found["id"] == job:
                return found
        raise InfrastructureError(f"QEMU forgot what it was to do for {self._name}")

"""States of a running guest that a person keeps, to go back to.

    STATE/guests/GUEST/states/NAME.json   when it was kept, and the bytes it takes; written last
    STATE/guests/GUEST/states/NAME.disk   a container's files; a machine's state is inside its own disk

All of it is in the guest's own directory, so nothing of it outlives the guest. A guest goes back to being what it was:
it keeps its name, keys and address; only its clock is set, and its random generator made anew.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_images.store import now
from cleanroom_workers import isolations, room
from cleanroom_workers.container_states import ContainerStates
from cleanroom_workers.libvirt_access import Libvirt, State
from cleanroom_workers.machine_states import MachineStates
from cleanroom_workers.records import GuestRecord, Owner
from cleanroom_workers.room import DiskFull
from cleanroom_workers.shell import Shell

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CORRECT_TIMEOUT = 60.0
_GOES_ON = "make room, and use the guest: it goes on where it stopped"
# Source: random(4): what is written is mixed in; RNDRESEEDCRNG makes the kernel's generator anew from it.
_CORRECT = """date --set="@$1" > /dev/null && cat > /dev/random || exit
! command -v perl > /dev/null || perl -e 'open my $pool, ">", "/dev/random"; ioctl $pool, 0x5207, 0'
"""


class Way(Protocol):
    """How the states of guests of one isolation are kept."""

    @property
    def size(self) -> int:
        """The bytes that one more may take."""

    def keep(self, name: str) -> None:
        """Keep the guest's state; it stands still meanwhile."""

    def prepare(self, name: str) -> None:
        """Do what takes time of going back, and leaves the guest as it is."""

    def roll_back(self, name: str) -> None:
        """Go back; the guest runs then, and may have to start."""

    def remove(self, name: str) -> None:
        """Forget a state; nothing happens when there is none."""


@dataclass(frozen=True, slots=True)
class SavedState:
    """A state that is kept: its name, when it was kept, the bytes it takes."""

    name: str
    made_at: str
    size: int


@dataclass(frozen=True, slots=True)
class Subject:
    """A running guest as its host hands it out to be worked on, under its lock. `write` puts down a record, `dispose`
    ends the guest, `room` raises DiskFull unless there is room for so many more bytes."""

    record: GuestRecord
    home: Path
    libvirt: Libvirt
    shell: Shell
    first_user: int
    write: Callable[[GuestRecord], None]
    dispose: Callable[[], None]
    room: Callable[[int], None]


class SavedStates:
    """The states that are kept of one guest."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._directory = subject.home / "states"
        self._machine = subject.record.isolation != "container"
        self._way: Way = (
            MachineStates(subject.libvirt, subject.record.name, subject.home)
            if self._machine
            else ContainerStates(subject.libvirt, subject.record.name, subject.home, subject.first_user)
        )

    def all(self) -> list[SavedState]:
        """All that are kept, the oldest first."""
        found = [json.loads(file.read_text(encoding="utf-8")) for file in self._directory.glob("*.json")]
        return sorted((SavedState(**content) for content in found), key=lambda state: (state.made_at, state.name))

    def keep(self, name: str) -> SavedState:
        """Keep the guest's state under a name. Raises InputError, DiskFull, InfrastructureError."""
        if not _NAME.fullmatch(name):
            raise InputError(f"{name!r} cannot be the name of a snapshot", hint="letters, digits, '.', '_' and '-'")
        if self._file(name).exists():
            raise InputError(
                f"there is a snapshot {name} of {self._subject.record.name} already",
                hint=f"cleanroom guest snapshot {self._subject.record.name} --remove {name}",
            )
        self._subject.room(self._way.size)
        self._directory.mkdir(exist_ok=True)
        before = _allocated(self._subject.home)
        try:
            self._subject.shell.close()
            self._way.keep(name)
        except BaseException as error:
            full = room.exhausted(self._subject.home)
            self._way.remove(name)
            # Where the guest does not answer any more, it is for the same reason.
            with contextlib.suppress(InfrastructureError):
                self._connect()
            if full and isinstance(error, InfrastructureError):
                raise DiskFull(f"the host's disk is full: {error.message}", hint="make room") from error
            raise
        self._connect()
        state = SavedState(name, now(), max(_allocated(self._subject.home) - before, 0))
        temporary = self._file(name).with_suffix(".new")
        temporary.write_text(json.dumps(asdict(state)), encoding="utf-8")
        temporary.replace(self._file(name))
        return state

    def roll_back(self, name: str) -> float:
        """Have the guest be what it was; returns the seconds until it answered. A guest that cannot be brought back
        is ended. Raises InputError, DiskFull, InfrastructureError."""
        self._check(name)
        started = time.monotonic()
        record = self._subject.record
        self._subject.room(self._way.size)
        self._way.prepare(name)
        # Who finds the guest after this process was killed in between takes it away.
        self._subject.write(replace(record, state="starting", owner=Owner.current()))
        try:
            self._subject.shell.close()
            self._way.roll_back(name)
            first = isolations.named(record.isolation).first_process(self._subject.libvirt, record.name)
            self._connect()
            self._subject.write(replace(record, first=None if first is None else Owner.of(first)))
        except BaseException:
            self._subject.dispose()
            raise
        return round(time.monotonic() - started, 3)

    def remove(self, name: str) -> None:
        """Forget a state. Raises InputError."""
        self._check(name)
        self._file(name).unlink()
        self._way.remove(name)

    def _check(self, name: str) -> None:
        if not _NAME.fullmatch(name) or not self._file(name).exists():
            guest = self._subject.record.name
            raise InputError(f"there is no snapshot {name} of {guest}", hint=f"see: cleanroom guest snapshot {guest}")

    def _connect(self) -> None:
        """Wait until the guest answers, and tell a machine, which stood still, what a restored one is told."""
        subject = self._subject
        deadline = time.monotonic() + isolations.named(subject.record.isolation).start_timeout
        subject.shell.open(deadline, self._alive)
        if self._machine:
            command = ["sh", "-c", _CORRECT, "sh", f"{time.time():.3f}"]
            done = subject.shell.run(command, timeout=_CORRECT_TIMEOUT, stdin=secrets.token_bytes(512))
            if done.exit_status != 0:
                raise InfrastructureError(f"the clock of {subject.record.name} cannot be set: {done.stderr[:200]!r}")

    def _alive(self) -> bool:
        """Whether waiting for the guest is worth it. Raises DiskFull where it waits for room itself."""
        libvirt, name = self._subject.libvirt, self._subject.record.name
        if self._machine and not libvirt.goes_on(name):
            raise DiskFull(f"{name} stands still: the host has no room for what it writes", hint=_GOES_ON)
        return libvirt.state(name) is State.RUNNING

    def _file(self, name: str) -> Path:
        return self._directory / f"{name}.json"


def _allocated(home: Path) -> int:
    """The bytes of disk that a guest's own files take."""
    return sum(file.stat().st_blocks * 512 for file in [*home.glob("disk*"), *home.glob("states/*")])

"""A guest's console: what was printed on it, and a person at it.

    STATE/guests/GUEST/console.log    what was printed, from its start
    STATE/guests/GUEST/console.lock   held by whoever reads the terminal

Both a machine's serial port and a container's console are a terminal on the host. QEMU also writes down what comes
out of a machine, all the time; what comes out of a container waits in its terminal until somebody looks, who then
writes it down.
"""

from __future__ import annotations

import contextlib
import os
import select
import termios
import time
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cleanroom_base.errors import InputError
from cleanroom_workers.locks import attempted

LOG = "console.log"
# As in virsh(1): Ctrl and the closing bracket.
_DETACH = b"\x1d"
# In seconds. A guest may print without end, so a look has one.
_PAUSE = 0.2
_LONGEST_LOOK = 2.0
_CHUNK = 65536
# What may be kept of what a guest prints: a hostile one prints without end.
_LIMIT = 16 << 20


@dataclass(frozen=True, slots=True)
class Console:
    """The console of the guest `name`, whose files are in `home`. `terminal` is None when it does not run; `recorded`
    says that the log is written without us."""

    name: str
    home: Path
    terminal: Path | None
    recorded: bool

    def printed(self, *, follow: bool) -> Iterator[bytes]:
        """What was printed, and with `follow` what comes until the guest ends. As it came: hostile."""
        position = 0
        while True:
            ended = not self._write_down()
            position = position if position <= self._size() else 0
            with contextlib.suppress(FileNotFoundError), self._log.open("rb") as log:
                log.seek(position)
                while chunk := log.read(_CHUNK):
                    position += len(chunk)
                    yield chunk
            if ended or not follow:
                return
            time.sleep(_PAUSE)

    def attach(self, person: int) -> None:
        """Put the terminal that is open as the descriptor `person` in the place of the guest's, until Ctrl-] or the
        guest's end. What the guest prints goes there as it is. Raises InputError."""
        if self.terminal is None:
            raise InputError(f"the guest {self.name} does not run")
        with attempted(self._lock) as alone, _opened(self.terminal) as guest:
            if not alone or guest is None:
                raise InputError(f"somebody else is at the console of {self.name}" if not alone else "it has ended")
            before = termios.tcgetattr(person)
            tty.setraw(person)
            try:
                self._relay(person, guest)
            finally:
                termios.tcsetattr(person, termios.TCSADRAIN, before)

    def _relay(self, person: int, guest: int) -> None:
        while True:
            ready, _, _ = select.select([person, guest], [], [])
            if guest in ready:
                printed = _read(guest)
                if not printed:
                    return
                self._append(printed)
                os.write(person, printed)
            if person in ready:
                typed = _read(person)
                before, detach, _ = typed.partition(_DETACH)
                with contextlib.suppress(BlockingIOError):
                    os.write(guest, before)
                if detach or not typed:
                    return

    def _write_down(self) -> bool:
        """Write down what waits in a container's terminal; returns whether the guest is still there."""
        if self.terminal is None or not self.terminal.exists():
            return False
        if not self.recorded:
            until = time.monotonic() + _LONGEST_LOOK
            with attempted(self._lock) as alone, _opened(self.terminal) as guest:
                # It comes a piece at a time.
                while alone and guest is not None and select.select([guest], [], [], _PAUSE)[0]:
                    printed = _read(guest)
                    self._append(printed)
                    if not printed or time.monotonic() > until:
                        return bool(printed)
        return self.home.is_dir()

    def _append(self, printed: bytes) -> None:
        if not self.recorded and self._size() < _LIMIT:
            with self._log.open("ab") as log:
                log.write(printed)

    def _size(self) -> int:
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def _log(self) -> Path:
        return self.home / LOG

    @property
    def _lock(self) -> Path:
        return self.home / "console.lock"


def bound(home: Path) -> None:
    """Forget what a machine printed once it is too much; QEMU goes on at the beginning, since it appends."""
    log = home / LOG
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LIMIT:
            os.truncate(log, 0)


@contextlib.contextmanager
def _opened(terminal: Path) -> Iterator[int | None]:
    """A guest's terminal; None when the guest has ended."""
    try:
        descriptor = os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        yield None
        return
    try:
        # At once: what waits there is not to be thrown away.
        tty.setraw(descriptor, termios.TCSANOW)
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> bytes:
    """What can be read from a terminal; nothing once its other end is closed."""
    try:
        return os.read(descriptor, _CHUNK)
    except OSError:
        return b""

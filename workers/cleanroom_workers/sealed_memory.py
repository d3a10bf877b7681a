"""A template's memory, sealed: machines map it and copy what they change; nobody can change it, however it is opened.

QEMU (before 8.2) opens the file of a memory for writing even if it only copies from it. So machines get a copy of
the file in memory that the kernel refuses to change. It has no name, and lives as long as a process has it open:
a sleeping one is started for that. Source: memfd_create(2), fcntl(2) on file sealing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.run import start
from cleanroom_workers.processes import keep
from cleanroom_workers.records import Owner

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_CHUNK = 1 << 18
_NOTHING = bytes(_CHUNK)


class MemoryChanged(InfrastructureError):
    """A template's memory is no longer what was sealed."""


def checksum(file: Path) -> str:
    """What tells a memory from any other: of its bytes that are not zero, and where they are."""
    digest = hashlib.sha256()
    with file.open("rb") as source:
        for offset, chunk in _chunks(source.fileno()):
            digest.update(offset.to_bytes(8, "little") + chunk)
    return digest.hexdigest()


def provide(file: Path, sealed: str, note: Path, account: tuple[int, int]) -> Path:
    """The path at which programs of the user and group `account` can open the sealed copy of `file`.

    It is made where there is none, which takes a second; the file `note` says which process holds it. The caller
    has locked it. Raises MemoryChanged when the checksum is not `sealed`.
    """
    holder = _holder(note)
    if holder is None:
        holder = _hold(_copy(file, sealed), note, account)
    return Path(f"/proc/{holder.process}/fd/0")


def withdraw(note: Path) -> None:
    """Let go of a sealed copy; machines that use it keep it."""
    holder = _holder(note)
    if holder is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder.process, signal.SIGKILL)
    note.unlink(missing_ok=True)


def _copy(file: Path, sealed: str) -> int:
    memory = os.memfd_create("template", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        digest = hashlib.sha256()
        with file.open("rb") as source:
            os.ftruncate(memory, os.fstat(source.fileno()).st_size)
            for offset, chunk in _chunks(source.fileno()):
                digest.update(offset.to_bytes(8, "little") + chunk)
                os.pwrite(memory, chunk, offset)
            # It is in memory now; once is enough.
            os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if digest.hexdigest() != sealed:
            raise MemoryChanged(f"{file} is not what was sealed")
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(memory)
        raise
    return memory


def _hold(memory: int, note: Path, account: tuple[int, int]) -> Owner:
    """Start the process that has the memory open as its standard input.

    It only stays once it is written down which one it is: until then it waits for a word of this process.
    """
    user, group = account
    listen, speak = os.pipe()
    try:
        # In a process of its own: here the pipe would, for a moment, be in the place of the memory.
        script = "(read -r word <&1) && exec sleep infinity"
        process = start(["sh", "-c", script], stdin=memory, stdout=listen, user=user, group=group)
        holder = Owner.of(process.pid)
        if holder is None:
            raise InfrastructureError("the process that is to hold a template's memory ended at once")
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary = note.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(holder)), encoding="utf-8")
        temporary.replace(note)
        os.write(speak, b"stay\n")
        keep(process)
        return holder
    finally:
        for descriptor in (memory, listen, speak):
            os.close(descriptor)


def _holder(note: Path) -> Owner | None:
    try:
        holder = Owner(**json.loads(note.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return holder if holder.alive() else None


def _chunks(file: int) -> Iterator[tuple[int, bytes]]:
    """Where in a file there is something else than zeros, and what; in pieces of fixed places."""
    size = os.fstat(file).st_size
    offset = 0
    while offset < size:
        try:
            begin = os.lseek(file, offset, os.SEEK_DATA)
        except OSError:  # nothing but a hole up to the end
            return
        offset = begin // _CHUNK * _CHUNK
        end = os.lseek(file, begin, os.SEEK_HOLE)
        while offset < end:
            chunk = os.pread(file, _CHUNK, offset)
            if chunk != _NOTHING[: len(chunk)]:
                yield offset, chunk
            offset += _CHUNK

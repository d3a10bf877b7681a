"""Mounts: made and unmade by the system's own programs, listed from /proc."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import struct
from collections.abc import Iterator
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.run import kill_group, run, start, wait

_TIMEOUT = 60.0
# Source: the kernel's fs/ext4/ext4.h, EXT4_IOC_SHUTDOWN and EXT4_GOING_FLAGS_NOLOGFLUSH.
_SHUT_DOWN = 0x8004587D
_WRITE_NOTHING = 2
_OCTAL = re.compile(r"\\([0-7]{3})")


def mounted(place: Path) -> bool:
    """Whether something is mounted at `place`."""
    return str(place) in _places()


def below(directory: Path) -> list[Path]:
    """Everything mounted below `directory`, the innermost first."""
    found = [Path(place) for place in _places() if place.startswith(f"{directory}/")]
    return sorted(found, key=lambda place: len(place.parts), reverse=True)


def mount(source: str | Path, place: Path, *, kind: str | None = None, options: str | None = None) -> None:
    """Mount `source` at `place`. Raises CommandError."""
    command: list[str | Path] = ["mount"]
    command += ["-t", kind] if kind else []
    command += ["-o", options] if options else []
    run([*command, source, place], timeout=_TIMEOUT)


def make_shared(directory: Path) -> bool:
    """Let mounts made below `directory` be seen in mount namespaces that are made from this one from now on.

    Returns whether there was anything to do.
    """
    if mounted(directory):
        return False
    mount(directory, directory, options="bind")
    run(["mount", "--make-shared", directory], timeout=_TIMEOUT)
    return True


def unmount(place: Path) -> None:
    """Unmount what is at `place`, now or as soon as its last user is gone. Raises CommandError."""
    run(["umount", "--lazy", place], timeout=_TIMEOUT)


@contextlib.contextmanager
def frozen(place: Path) -> Iterator[None]:
    """Have the file system at `place` stand still: what is written to it waits. Raises InfrastructureError.

    A program of its own sees to the end of it, so that it also ends when this process is killed.
    """
    script = 'fsfreeze --freeze "$1" && echo frozen && cat > /dev/null; fsfreeze --unfreeze "$1"'
    until, hold = os.pipe()
    hear, tell = os.pipe()
    with os.fdopen(hold, "wb") as held, os.fdopen(hear, "rb", buffering=0) as heard:
        try:
            process = start(["sh", "-c", script, "sh", place], stdin=until, stdout=tell)
        finally:
            os.close(until)
            os.close(tell)
        try:
            ready, _, _ = select.select([heard], [], [], _TIMEOUT)
            if not ready or not heard.read(1):
                raise InfrastructureError(f"{place} cannot be made to stand still")
            yield
        finally:
            held.close()
            if not wait(process, _TIMEOUT):
                kill_group(process)


def abandon(place: Path) -> None:
    """Unmount an ext4 file system on a loop device of which nothing is needed any more: what is not yet written
    never is, which spares the disk most of a guest's work. Any other file system is just unmounted."""
    if (place, "/dev/loop") in ((Path(found), source[:9]) for found, source in _mounts()):
        with contextlib.suppress(OSError):
            directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            try:
                # What is mounted here may have been unmounted meanwhile: never shut down what lies below.
                if os.fstat(directory).st_dev != place.parent.stat().st_dev:
                    fcntl.ioctl(directory, _SHUT_DOWN, struct.pack("I", _WRITE_NOTHING))
            finally:
                os.close(directory)
    unmount(place)


def damaged(place: Path) -> bool:
    """Whether the ext4 file system at `place`, on a loop device, could not write all that it was given.

    That happens where its file has no room on the host's disk: some of it is lost then, and programs are told of errors
    that are not theirs, also when there is room again. What is not yet written is not yet known to be lost. Source: the
    kernel's Documentation/ABI/testing/sysfs-fs-ext4; a block of data that cannot be written is a warning
    (ext4_end_bio in fs/ext4/page-io.c), one of metadata an error (ext4_check_bdev_write_error).
    """
    devices = [source for found, source in _mounts() if found == str(place) and source.startswith("/dev/loop")]
    told = [Path("/sys/fs/ext4", Path(one).name, f"{kind}_count") for one in devices for kind in ("errors", "warning")]
    return any(int(one.read_text(encoding="ascii")) > 0 for one in told if one.exists())


def _places() -> list[str]:
    return [place for place, _ in _mounts()]


def _mounts() -> list[tuple[str, str]]:
    """All mount points, each with what is mounted; spaces and the like are octal there.

    Source: proc(5), /proc/[pid]/mountinfo: the source comes after a hyphen that ends the optional fields.
    """
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as table:
        rows = [line.split() for line in table]
    return [(_OCTAL.sub(lambda code: chr(int(code[1], 8)), row[4]), row[row.index("-", 6) + 2]) for row in rows]

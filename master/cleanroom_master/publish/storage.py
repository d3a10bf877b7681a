"""Writing that survives: every file is on the disk before a name leads to it.

A generation becomes visible by renames alone, so the order "bytes, directories, rename, directory" is what
makes a kill or a power cut at any point harmless. Everything is readable by all, whatever the umask: a web
server of another user serves it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cleanroom_base.errors import InfrastructureError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FLUSHES = 16


@contextlib.contextmanager
def reported(action: str) -> Iterator[None]:
    """Turn an error of the operating system into an InfrastructureError that says what was being done."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise InfrastructureError(
                f"{action}: the disk is full ({error.filename or 'no file named'})",
                hint="free some space; what is published stays as it is, and the work is tried again",
            ) from error
        raise InfrastructureError(f"{action}: {error}") from error


def make_directory(directory: Path) -> list[Path]:
    """Make a directory that everyone may read, and those above it; returns those that were not there."""
    if directory.is_dir():
        return []
    made = make_directory(directory.parent)
    with contextlib.suppress(FileExistsError):
        directory.mkdir()
        directory.chmod(0o755)
    return [*made, directory]


def make_lasting_directory(directory: Path) -> None:
    """The same, and bring their names to the disk."""
    for made in make_directory(directory):
        flush(made.parent)


def write(file: Path, content: bytes, *, modified: float | None = None) -> None:
    """Write a new file, to be flushed later; `modified` is its time in seconds since 1970 (default: now)."""
    make_directory(file.parent)
    with file.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fchmod(stream.fileno(), 0o644)
        if modified is not None:
            os.utime(stream.fileno(), (modified, modified))


def replace(file: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or the file of before; it is on the disk then."""
    beside = file.with_name(f".{file.name}.new")
    beside.unlink(missing_ok=True)
    write(beside, content)
    flush_file(beside)
    beside.rename(file)
    flush(file.parent)


def link(existing: Path, name: Path) -> None:
    """Give a file one more name (a hard link); a name that is there stays."""
    make_directory(name.parent)
    with contextlib.suppress(FileExistsError):
        os.link(existing, name, follow_symlinks=False)


def replace_symbolic_link(name: Path, target: Path) -> None:
    """Point a symbolic link elsewhere, by one rename."""
    beside = name.with_name(f".{name.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.rename(name)
    flush(name.parent)


def flush(directory: Path) -> None:
    """Bring the names in a directory to the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_file(file: Path) -> None:
    """Bring the content of a file to the disk."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def flush_new(directory: Path, files: Iterable[Path]) -> None:
    """Bring the new files and all names in a new directory and below it to the disk.

    What only got one more name there is on the disk already. Several at a time: the file system brings those that
    wait together to the disk with one write of its journal.
    """
    directories = [Path(inside) for inside, _, _ in os.walk(directory)]
    with ThreadPoolExecutor(_FLUSHES) as threads:
        # As lists, so that what went wrong is raised here.
        list(threads.map(flush_file, files))
        list(threads.map(flush, directories))


def remove(path: Path) -> None:
    """Remove a file, a link or a whole directory; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

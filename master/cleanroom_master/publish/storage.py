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
from collections.abc import Iterator
from pathlib import Path

from cleanroom_base.errors import InfrastructureError

_FULL = (errno.ENOSPC, errno.EDQUOT)


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


def make_directory(directory: Path) -> None:
    """Make a directory that everyone may read, and those above it; one that exists is left alone."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    with contextlib.suppress(FileExistsError):
        directory.mkdir()
        directory.chmod(0o755)
        flush(directory.parent)


def write(file: Path, content: bytes, *, modified: float | None = None) -> None:
    """Write a new file and flush it; `modified` is its time in seconds since 1970 (default: now)."""
    make_directory(file.parent)
    with file.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fchmod(stream.fileno(), 0o644)
        if modified is not None:
            os.utime(stream.fileno(), (modified, modified))
        os.fsync(stream.fileno())


def replace(file: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or the file of before."""
    beside = file.with_name(f".{file.name}.new")
    beside.unlink(missing_ok=True)
    write(beside, content)
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


def flush_tree(directory: Path) -> None:
    """Bring the names in a directory and below it to the disk (links to directories are not followed)."""
    for inside, _, _ in os.walk(directory):
        flush(Path(inside))


def remove(path: Path) -> None:
    """Remove a file, a link or a whole directory; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

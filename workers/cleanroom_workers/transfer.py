"""Files on their way into a guest and out of it, as tar streams.

What comes out was written by a stranger's program with all powers in its guest: names, types and sizes are
checked here, and nothing is ever unpacked by a tool that believes them.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO

from cleanroom_base.errors import InputError, ProductError
from cleanroom_base.run import OutputLimitExceeded

_NAME_LIMIT = 255
_FILE_LIMIT = 10_000


class UnsafeFile(ProductError):
    """A file that was to come out of a guest is not what it may be."""


def pack(source: Path, destination: str, stream: IO[bytes]) -> str:
    """Write a file or what is in a directory into `stream`; returns the directory to unpack it in."""
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        if source.is_dir():
            for child in sorted(source.iterdir()):
                tar.add(child, arcname=child.name, filter=_owned_by_root)
            return destination
        if not source.is_file():
            raise InputError(f"{source} is neither a file nor a directory")
        path = PurePosixPath(destination)
        tar.add(source.resolve(), arcname=path.name, filter=_owned_by_root)
        return str(path.parent)


def unpack(stream: IO[bytes], destination: Path, *, top: str, limit: int) -> list[Path]:
    """Write the regular files of a tar stream into `destination`; `top` is the first part of all names in it.

    Raises UnsafeFile, OutputLimitExceeded when the files have more than `limit` bytes.
    """
    written: list[Path] = []
    total = 0
    destination.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                path = destination / safe_name(member.name, top)
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise UnsafeFile(f"{member.name!r} is no regular file")
                total += member.size
                if total > limit:
                    raise OutputLimitExceeded(f"the files have more than {limit} bytes")
                if len(written) >= _FILE_LIMIT:
                    raise UnsafeFile(f"there are more than {_FILE_LIMIT} files")
                _copy(tar, member, path)
                written.append(path)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UnsafeFile(f"the stream of files is broken: {error}") from error
    return written


def safe_name(name: str, top: str) -> PurePosixPath:
    """A member's name as a relative path below `top` (the file `top` itself keeps its name). Raises UnsafeFile."""
    path = PurePosixPath(name)
    parts = path.parts
    if path.is_absolute() or ".." in parts:
        raise UnsafeFile(f"{name!r} leads out of its directory")
    if any(len(part.encode(errors="surrogateescape")) > _NAME_LIMIT for part in parts) or len(parts) > 32:
        raise UnsafeFile(f"{name[:100]!r}... is too long a name")
    if not name.isprintable():
        raise UnsafeFile(f"{name!r} has characters that do not print")
    if parts and parts[0] == top and len(parts) > 1:
        return PurePosixPath(*parts[1:])
    return path


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    if source is None:
        raise UnsafeFile(f"{member.name!r} has no content")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name that comes twice, or is a file and a directory, is an attempt at something.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o644), "wb") as sink:
            shutil.copyfileobj(source, sink)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UnsafeFile(f"{member.name!r} came twice") from error


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member

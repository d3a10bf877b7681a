"""A manifest lists a file tree so that two trees are equal exactly when their manifests are.

One line a path, sorted: type, mode, owner, group, what it holds, path. Times are left out, because they say
when a tree was made and not what is in it. An image's digest is the SHA-256 of its manifest.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}


def lines(tree: Path) -> Iterator[str]:
    """The manifest's lines of the file tree `tree`, the tree's root as `.` among them."""
    root = os.fsencode(tree)
    for path in _paths(root):
        yield f"{describe(path)} {escape(os.path.relpath(path, root))}"


def write(tree: Path, file: Path) -> str:
    """Write the manifest of `tree` into `file` and return its digest in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("wb") as sink:
        for line in lines(tree):
            encoded = f"{line}\n".encode()
            digest.update(encoded)
            sink.write(encoded)
    return digest.hexdigest()


def same(one: Path, other: Path, *, but: tuple[str, ...]) -> bool:
    """Whether two manifests list the same, leaving out paths that begin with one of `but`."""

    def listed(file: Path) -> list[str]:
        with file.open(encoding="utf-8") as source:
            return [line for line in source if not line.rsplit(" ", 1)[1].startswith(but)]

    return listed(one) == listed(other)


def file_digest(file: Path | bytes) -> str:
    """The SHA-256 of a file's content in hexadecimal."""
    with open(file, "rb") as source:  # noqa: PTH123 - the path may be bytes that are no text
        return hashlib.file_digest(source, "sha256").hexdigest()


def _paths(directory: bytes) -> Iterator[bytes]:
    yield directory
    with os.scandir(directory) as entries:
        children = sorted(entries, key=lambda entry: entry.name)
    for entry in children:
        if entry.is_dir(follow_symlinks=False):
            yield from _paths(entry.path)
        else:
            yield entry.path


def describe(path: bytes, *, owner_offset: int = 0) -> str:
    """What a manifest says of the file or directory at `path`, all but its name.

    Owners are counted from `owner_offset`: the number of the tree's root user where its users are mapped.
    """
    status = os.lstat(path)
    kind = _TYPES[stat.S_IFMT(status.st_mode)]
    if kind == "file":
        content = file_digest(path)
    elif kind == "link":
        content = escape(os.readlink(path))  # noqa: PTH115 - the path may be bytes that are no text
    elif kind in ("character", "block"):
        content = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    else:
        content = "-"
    owner, group = status.st_uid - owner_offset, status.st_gid - owner_offset
    return f"{kind} {stat.S_IMODE(status.st_mode):04o} {owner} {group} {content}"


def escape(name: bytes) -> str:
    """A file name as one printable word: bytes outside printable ASCII, spaces and backslashes as \\xNN."""
    return "".join(chr(byte) if 0x21 <= byte <= 0x7E and byte != 0x5C else f"\\x{byte:02x}" for byte in name)

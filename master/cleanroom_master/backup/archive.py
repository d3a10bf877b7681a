"""The file of a backup: a tar archive whose last member is a manifest with the SHA-256 of every other.

    about.json          what it is of: format, schema, generation, when and by which version it was made
    database.dump       the record, in PostgreSQL's custom format (pg_dump -Fc)
    state/...           files of the state directory, at their places there
    keys.tar.gpg        the signing keys, encrypted with a passphrase; only where that was asked for
    MANIFEST            one line a member, in their order: what `sha256sum --check` reads
    MANIFEST.sha256     the digest of the manifest

It is written and read as a stream, in pieces: neither takes more memory for more files. What is one file with several
names in the state (hard links) is stored once. An archive without its end has no manifest and is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any, Self

from cleanroom_base.errors import InputError, Problem

FORMAT = 1
ABOUT = "about.json"
DATABASE = "database.dump"
KEYS = "keys.tar.gpg"
STATE = "state"
_MANIFEST = "MANIFEST"
_SEAL = "MANIFEST.sha256"
_PIECE = 1 << 20
# What is small enough to be read at once.
_SMALL = 1 << 20
# Differences that are told.
_TOLD = 20
Progress = Callable[[int, str], None]


class Damaged(InputError):
    """The file is no complete backup, or not what was written."""


@dataclass(frozen=True)
class Member:
    """One file of a backup. `target` is where a link leads: a symbolic one, or (`hard`) to an earlier member."""

    name: str
    size: int
    mode: int
    modified: float
    target: str | None = None
    hard: bool = False


class Writer:
    """Writes a backup, in a context of its own; `close` makes it complete."""

    def __init__(self, file: IO[bytes], scratch: Path, progress: Progress) -> None:
        """`scratch` is a directory for the manifest while it grows."""
        self._tar = tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - see close
        self._manifest = (scratch / "manifest").open("w+b")
        self._progress = progress
        # Of files with several names, those that were not met yet: forgotten once all names were.
        self._linked: dict[tuple[int, int], tuple[str, int]] = {}
        self.files = 0
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manifest.close()
        # Of what was not completed the rest is written here, and not when it is collected, to a file that is closed.
        with contextlib.suppress(OSError):
            self._tar.fileobj.close()

    def text(self, name: str, content: bytes) -> None:
        """Add a small file."""
        info = _info(name, len(content), 0o600, 0.0)
        self._add(info, io.BytesIO(content))

    def file(self, path: Path, name: str) -> bool:
        """Add a file or a symbolic link of the disk; False when it is not there any more."""
        try:
            state = path.lstat()
            if path.is_symlink():
                self.link(name, str(path.readlink()), state.st_mtime)
                return True
            source = path.open("rb")
        except FileNotFoundError:
            return False
        with source:
            state = os.fstat(source.fileno())
            if (earlier := self._earlier(state, name)) is not None:
                info = _info(name, 0, state.st_mode & 0o777, state.st_mtime)
                info.type, info.linkname = tarfile.LNKTYPE, earlier
                self._note(info, hashlib.sha256(b"hard link to " + earlier.encode()).hexdigest())
                return True
            self._add(_info(name, state.st_size, state.st_mode & 0o777, state.st_mtime), source)
        return True

    def link(self, name: str, target: str, modified: float) -> None:
        """Add a symbolic link."""
        info = _info(name, 0, 0o777, modified)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self._note(info, hashlib.sha256(b"link to " + target.encode()).hexdigest())

    def close(self) -> str:
        """Write the manifest; returns its digest. Without this the backup is not complete."""
        self._manifest.seek(0)
        digest = hashlib.file_digest(self._manifest, "sha256").hexdigest()
        length = self._manifest.tell()
        self._manifest.seek(0)
        self._tar.addfile(_info(_MANIFEST, length, 0o600, 0.0), self._manifest)
        seal = f"{digest}  {_MANIFEST}\n".encode()
        self._tar.addfile(_info(_SEAL, len(seal), 0o600, 0.0), io.BytesIO(seal))
        self._tar.close()
        return digest

    def _earlier(self, state: os.stat_result, name: str) -> str | None:
        """The member that has the same bytes, where this is a further name of a file."""
        if state.st_nlink == 1:
            return None
        key = (state.st_dev, state.st_ino)
        first, left = self._linked.get(key, (None, state.st_nlink))
        if left == 1:
            self._linked.pop(key, None)
        else:
            self._linked[key] = (first or name, left - 1)
        return first

    def _add(self, info: tarfile.TarInfo, source: IO[bytes]) -> None:
        reading = _Hashing(source, info.size)
        self._tar.addfile(info, reading)
        self._note(None, reading.digest.hexdigest(), info.name)
        self.size += info.size

    def _note(self, info: tarfile.TarInfo | None, digest: str, name: str = "") -> None:
        if info is not None:
            self._tar.addfile(info)
        # It remembers all that it wrote, which nobody asks for.
        self._tar.members = []  # type: ignore[attr-defined]
        self._manifest.write(_line(digest, info.name if info is not None else name))
        self.files += 1
        self._progress(self.size, info.name if info is not None else name)


class _Hashing:
    """A file of a size that is hashed while it is read; one that became shorter meanwhile is an error."""

    def __init__(self, source: IO[bytes], size: int) -> None:
        self._source = source
        self._left = size
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """A piece."""
        piece = self._source.read(min(size if size >= 0 else self._left, self._left))
        self._left -= len(piece)
        self.digest.update(piece)
        return piece


def verify(file: Path, progress: Progress) -> dict[str, Any]:
    """Compare all of a backup with its manifest; returns what it is of. Raises Damaged with the first differences."""
    # What is read of a member is read here, and fails here.
    with tempfile.TemporaryFile() as found, _damage(file):
        about: dict[str, Any] | None = None
        listed = _Listed()
        for member, content in _members(file):
            if member.name in (_MANIFEST, _SEAL):
                listed.take(member, content, found)
                continue
            digest, start = _digest(member, content)
            if member.name == ABOUT:
                about = _about(start)
            found.write(_line(digest, member.name))
            progress(member.size, member.name)
    if not listed.complete:
        raise Damaged(f"{file} ends before its manifest: it is not complete", hint="make another backup")
    if listed.problems:
        raise Damaged(f"{file} is not what was written", problems=listed.problems[:_TOLD])
    if about is None:
        raise Damaged(f"{file} does not say what it is of")
    return about


class _Listed:
    """The manifest at the end, compared with what was found."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.complete = False
        self._digest = ""

    def take(self, member: Member, content: IO[bytes] | None, found: IO[bytes]) -> None:
        """The manifest, and then its seal."""
        assert content is not None
        if member.name == _SEAL:
            self.complete = content.read(_SMALL) == f"{self._digest}  {_MANIFEST}\n".encode()
            if not self.complete:
                self.problems.append(Problem(_MANIFEST, "is not the manifest that was written"))
                self.complete = True
            return
        found.seek(0)
        whole = hashlib.sha256()
        for line in content:
            whole.update(line)
            if (other := found.readline()) != line and len(self.problems) < _TOLD:
                self.problems.append(_difference(line, other))
        if found.readline():
            self.problems.append(Problem(_MANIFEST, "there is more than it lists"))
        self._digest = whole.hexdigest()


def _difference(listed: bytes, found: bytes) -> Problem:
    name = listed.decode(errors="replace").rstrip("\n").partition("  ")[2]
    same = found.decode(errors="replace").rstrip("\n").partition("  ")[2] == name
    return Problem(name, "has other content" if same else "is not at its place")


def members(file: Path) -> Iterator[tuple[Member, IO[bytes] | None]]:
    """The members of a backup that was verified, each with its content; without the manifest."""
    for member, content in _members(file):
        if member.name not in (_MANIFEST, _SEAL):
            yield member, content


def _members(file: Path) -> Iterator[tuple[Member, IO[bytes] | None]]:
    """All members, as a stream. Raises Damaged."""
    with contextlib.ExitStack() as opened, _damage(file):
        tar = opened.enter_context(tarfile.open(opened.enter_context(file.open("rb")).name, mode="r|"))
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]
            name = safe(info.name)
            if info.isreg():
                yield Member(name, info.size, info.mode, info.mtime), tar.extractfile(info)
            elif info.issym() or info.islnk():
                target = safe(info.linkname) if info.islnk() else info.linkname
                yield Member(name, 0, info.mode, info.mtime, target, info.islnk()), None
            else:
                raise Damaged(f"{file} has a member of a kind that no backup has: {name}")


@contextlib.contextmanager
def _damage(file: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"there is no file {file}") from error
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise Damaged(f"{file} is no complete backup: {error}", hint="make another backup") from error
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error


def _digest(member: Member, content: IO[bytes] | None) -> tuple[str, bytes]:
    """The digest of a member as the manifest has it, and how its content begins."""
    if content is None:
        how = b"hard link to " if member.hard else b"link to "
        return hashlib.sha256(how + (member.target or "").encode()).hexdigest(), b""
    whole, start = hashlib.sha256(), b""
    while piece := content.read(_PIECE):
        whole.update(piece)
        start = start or piece
    return whole.hexdigest(), start


def _about(content: bytes) -> dict[str, Any]:
    try:
        about = json.loads(content)
    except ValueError as error:
        raise Damaged(f"{ABOUT} cannot be read: {error}") from error
    if not isinstance(about, Mapping) or about.get("format") != FORMAT:
        raise InputError("this backup has a form that this version does not know", hint="use the version that made it")
    return dict(about)


def safe(name: str) -> str:
    """A name within the archive. Raises Damaged for one that leads elsewhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\n" in name or str(path) != name:
        raise Damaged(f"a backup has no such name: {name[:100]!r}")
    return name


def _line(digest: str, name: str) -> bytes:
    return f"{digest}  {name}\n".encode()


def _info(name: str, size: int, mode: int, modified: float) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    # Whole seconds: more would take a further header for each.
    info.size, info.mode, info.mtime = size, mode, int(modified)
    return info

"""What a package needs and which files it holds, read from a kept artifact as from a hostile thing.

Archives are read as streams and unpacked nowhere. The number of paths, their length, all bytes that come out of the
compression, and the time are bounded; what is beyond is a mistake of the package (InputError).
Sources of the formats: deb(5), tar(5), rpm's own query tags (rpm --querytags).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import select
import stat
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from cleanroom_base import run
from cleanroom_base.errors import InputError
from cleanroom_base.run import CommandError, OutputLimitExceeded
from cleanroom_db.packages import FileType, PackageContents, PackagedFile
from cleanroom_master.publish import control

if TYPE_CHECKING:
    from typing_extensions import Buffer

_TIMEOUT = 900.0
_CONTROL_LIMIT = 1 << 20
# A whole kernel with its modules and sources has some 100,000 paths, a large data package some gigabytes.
PATHS = 500_000
_PATH_LENGTH = 4096
_UNPACKED_LIMIT = 64 << 30
_LISTING_LIMIT = 256 << 20
_CHUNK = 1 << 20
_BUFFER = 256 << 10
_HEADER_LIMIT = 64 << 10
_EXTENSIONS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
# Directories that a merged /usr has as links (usrmerge): /bin/sh and /usr/bin/sh are one file there.
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32")
_DEBIAN_RELATIONS = ("Pre-Depends", "Depends", "Provides", "Conflicts", "Breaks", "Replaces", "Essential", "Multi-Arch")
_DEBIAN_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")
_DEBIAN_VERSION = re.compile(r"(?:[0-9]{1,9}:)?[0-9][A-Za-z0-9+.~-]{0,200}")
_ARCHITECTURE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_DIVERTED = re.compile(r"(?<![\w./-])/[^\s'\"\\;|&$`]{1,500}")
_RPM_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9+._~^-]{0,200}")
# What an rpm's header may call a dependency: never the start of a line that ends the list it stands in.
_RPM_RELATION = re.compile(r"[A-Za-z0-9_/(.%][^\x00-\x1f\x7f]{0,1000}")
_RPM_RELATIONS = {"REQUIRENEVRS": "Req", "PROVIDENEVRS": "Prv", "CONFLICTNEVRS": "Con", "OBSOLETENEVRS": "Obs"}
_RPM_FILE = re.compile(r"([0-7]{1,7})\t([0-9]{1,20})\t([0-9a-f]*)\t([0-9]{1,10})\t(/[^\t]*)\t([^\t]*)")
_RPM_GHOST = 1 << 6
_RPM_PROGRAM = re.compile(r"/usr/s?bin/[A-Za-z0-9._+-]{1,200}")
# rpm itself promises these.
_RPM_OWN = re.compile(r"rpmlib\(|config\(|rtld\(")


def read(file: Path, kind: str) -> PackageContents:
    """Read a package of the kind `deb`, `udeb` or `rpm`.

    Raises InputError for what is no whole package, or is beyond the limits.
    """
    try:
        return _read_rpm(file) if kind == "rpm" else _read_deb(file, kind)
    except (CommandError, OutputLimitExceeded) as error:
        raise InputError(f"it cannot be read as {kind}: {error.message[:500]}") from error


def normal_path(path: str) -> str:
    """A path as it is on a system with a merged /usr: absolute, without `.` and doubled slashes.

    Raises InputError for a path that leads out of its tree, or is too long.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or len(path) > _PATH_LENGTH:
        raise InputError(f"it has a path that no package may have: {path[:100]!r}")
    if parts and parts[0] in _MERGED:
        parts.insert(0, "usr")
    return "/" + "/".join(parts)


# -- deb ---------------------------------------------------------------------------------------------------------------


def _read_deb(file: Path, kind: str) -> PackageContents:
    parts = _control_parts(file)
    fields = control.parse(parts.get("control", b""))
    name, version, architecture = (
        _word(fields, field, allowed)
        for field, allowed in (
            ("Package", _DEBIAN_NAME),
            ("Version", _DEBIAN_VERSION),
            ("Architecture", _ARCHITECTURE),
        )
    )
    relations = {field: " ".join(fields[field].split()) for field in _DEBIAN_RELATIONS if fields.get(field, "").strip()}
    paragraph = control.write({"Package": name, "Version": version, "Architecture": architecture, **relations})
    return PackageContents(
        kind, name, version, architecture, paragraph, _deb_files(file), _diverted(parts.get("preinst", b""))
    )


def _control_parts(file: Path) -> dict[str, bytes]:
    """The control data and the script that runs before the files are unpacked."""
    parts = {}
    with _members(["dpkg-deb", "--ctrl-tarfile", str(file)], _CONTROL_LIMIT * 16) as members:
        for member, content in members:
            name = member.name.removeprefix("./")
            if name in ("control", "preinst") and member.isreg():
                if member.size > _CONTROL_LIMIT:
                    raise InputError(f"its {name} is larger than {_CONTROL_LIMIT} bytes")
                parts[name] = content.read()
    return parts


def _deb_files(file: Path) -> list[PackagedFile]:
    found: dict[str, PackagedFile] = {}
    with _members(["dpkg-deb", "--fsys-tarfile", str(file)], _UNPACKED_LIMIT) as members:
        for member, content in members:
            path = normal_path(member.name)
            if path == "/":
                continue
            _add(found, _packaged(path, member, content, found))
    return list(found.values())


def _packaged(
    path: str, member: tarfile.TarInfo, content: IO[bytes], found: Mapping[str, PackagedFile]
) -> PackagedFile:
    mode = stat.S_IMODE(member.mode)
    if member.isdir():
        return PackagedFile(path, FileType.DIRECTORY, mode, 0)
    if member.issym():
        return PackagedFile(path, FileType.LINK, mode, 0, target=member.linkname[:_PATH_LENGTH])
    if member.islnk():
        same = found.get(normal_path(member.linkname))
        if same is None:
            return PackagedFile(path, FileType.FILE, mode, 0)
        return replace(same, path=path)
    if member.isreg():
        digest = hashlib.sha256()
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
        return PackagedFile(path, FileType.FILE, mode, member.size, digest.hexdigest())
    return PackagedFile(path, FileType.OTHER, mode, 0)


def _add(found: dict[str, PackagedFile], file: PackagedFile) -> None:
    known = found.get(file.path)
    # /bin/x as a link to /usr/bin/x, for systems without a merged /usr, is that very file.
    if known is None or known.type is FileType.LINK:
        found[file.path] = file
    if len(found) > PATHS:
        raise InputError(f"it has more than {PATHS} paths")


def _diverted(script: bytes) -> tuple[str, ...]:
    """The paths that a script hands to dpkg-divert, as far as its text has them."""
    text = script.decode(errors="replace")
    if "dpkg-divert" not in text:
        return ()
    found: dict[str, None] = {}
    for path in _DIVERTED.findall(text)[:1000]:
        with contextlib.suppress(InputError):
            found[normal_path(path)] = None
    return tuple(found)


class _Stream(io.RawIOBase):
    """What a program prints, read with a limit of bytes and of time."""

    def __init__(self, descriptor: int, limit: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._left = limit
        self._deadline = time.monotonic() + _TIMEOUT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        readable, _, _ = select.select([self._descriptor], [], [], max(self._deadline - time.monotonic(), 0))
        if not readable:
            raise InputError(f"it could not be unpacked in {_TIMEOUT:.0f} s")
        size = os.readv(self._descriptor, [buffer])
        self._left -= size
        if self._left < 0:
            raise InputError("it unpacks to more than a package may")
        return size


class _Member(tarfile.TarInfo):
    """A member whose headers are small: tarfile reads long names and their like into memory, whatever their size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type in _EXTENSIONS and member.size > _HEADER_LIMIT:
            raise InputError("it has a name that is too long")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise InputError("it has a file with holes, which no package has")
        return member


@contextlib.contextmanager
def _members(command: list[str], limit: int) -> Iterator[Iterator[tuple[tarfile.TarInfo, IO[bytes]]]]:
    """The members of the tar archive that a program prints, each with its content. Raises InputError."""
    reading, writing = os.pipe()
    try:
        try:
            process = run.start(command, stdout=writing)
        finally:
            os.close(writing)
        try:
            stream = io.BufferedReader(_Stream(reading, limit), _BUFFER)
            try:
                with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive:
                    yield _each(archive)
                while stream.read(_BUFFER):
                    pass
            except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
                raise InputError(f"it is no whole Debian package: {error}") from error
            if not run.wait(process, _TIMEOUT) or process.returncode != 0:
                raise InputError("it is no whole Debian package")
        finally:
            run.kill_group(process)
    finally:
        os.close(reading)


def _each(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    nothing = io.BytesIO()
    while (member := archive.next()) is not None:
        # tarfile keeps all members, which a stream has no use for.
        vars(archive)["members"] = []
        content = archive.extractfile(member) if member.isreg() else None
        yield member, content or nothing


def _word(fields: Mapping[str, str], name: str, allowed: re.Pattern[str]) -> str:
    value = fields.get(name, "").strip()
    if not allowed.fullmatch(value):
        raise InputError(f"its control data has no acceptable {name}: {value[:100]!r}")
    return value


# -- rpm ---------------------------------------------------------------------------------------------------------------


def _read_rpm(file: Path) -> PackageContents:
    head = _query(file, "%{NAME}\\n%{EPOCH}\\n%{VERSION}\\n%{RELEASE}\\n%{ARCH}\\n", _CONTROL_LIMIT).split("\n")
    if len(head) != 6:
        raise InputError("it has a line break in its name or version")
    name, epoch, version, release, architecture = head[:5]
    for word in (name, version, release, architecture):
        if not _RPM_WORD.fullmatch(word):
            raise InputError(f"it calls itself {word[:100]!r}, which is no acceptable name or version")
    prefix = "" if epoch in ("(none)", "0") else f"{int(epoch)}:"
    paragraph = [f"=Pkg: {name} {prefix}{version} {release} {architecture}"]
    files = _rpm_files(file)
    for tag, word in _RPM_RELATIONS.items():
        programs = _programs(files) if word == "Prv" else []
        paragraph += [f"+{word}:", *_rpm_relations(file, tag), *programs, f"-{word}:"]
    return PackageContents(
        "rpm", name, f"{prefix}{version}-{release}", architecture, "\n".join([*paragraph, ""]), files
    )


def _programs(files: Sequence[PackagedFile]) -> list[str]:
    """The programs of an rpm, which others may require by their paths, as a merged /usr has them and by the other."""
    paths = [file.path for file in files if file.type is not FileType.DIRECTORY and _RPM_PROGRAM.fullmatch(file.path)]
    return [name for path in paths for name in (path, path.removeprefix("/usr"))]


def _rpm_relations(file: Path, tag: str) -> list[str]:
    lines = _query(file, f"[%{{{tag}}}\\n]", _CONTROL_LIMIT * 4).split("\n")
    found = [line for line in lines if line and line != "(none)" and not _RPM_OWN.match(line)]
    for line in found:
        if not _RPM_RELATION.fullmatch(line):
            raise InputError(f"it has a dependency that is none: {line[:100]!r}")
    return found


def _rpm_files(file: Path) -> list[PackagedFile]:
    tags = ("FILEMODES:octal", "LONGFILESIZES", "FILEDIGESTS", "FILEFLAGS", "FILENAMES", "FILELINKTOS")
    listing = _query(file, "[" + "\\t".join(f"%{{{tag}}}" for tag in tags) + "\\n]", _LISTING_LIMIT)
    found: dict[str, PackagedFile] = {}
    for line in listing.split("\n"):
        if not line or "(none)" in line.split("\t")[4:5]:
            continue
        matched = _RPM_FILE.fullmatch(line)
        if matched is None:
            raise InputError(f"its list of files cannot be read: {line[:200]!r}")
        mode, size, digest, flags, path, target = matched.groups()
        if int(flags) & _RPM_GHOST:
            # It belongs to the package, but is not in it.
            continue
        path = normal_path(path)
        if path != "/":
            _add(found, _rpm_file(path, int(mode, 8), min(int(size), 1 << 62), digest, target))
    return list(found.values())


def _rpm_file(path: str, mode: int, size: int, digest: str, target: str) -> PackagedFile:
    if stat.S_ISDIR(mode):
        return PackagedFile(path, FileType.DIRECTORY, stat.S_IMODE(mode), 0)
    if stat.S_ISLNK(mode):
        return PackagedFile(path, FileType.LINK, stat.S_IMODE(mode), 0, target=target[:_PATH_LENGTH])
    if stat.S_ISREG(mode):
        known = digest if len(digest) % 2 == 0 and digest else None
        return PackagedFile(path, FileType.FILE, stat.S_IMODE(mode), size, known)
    return PackagedFile(path, FileType.OTHER, stat.S_IMODE(mode), 0)


def _query(file: Path, form: str, limit: int) -> str:
    with tempfile.TemporaryDirectory() as database:
        command = ["rpm", "--dbpath", database, "--query", "--package", "--nosignature", "--queryformat", form]
        printed = run.run([*command, file], timeout=_TIMEOUT, capture_limit=limit).stdout
    return printed.decode(errors="surrogateescape")

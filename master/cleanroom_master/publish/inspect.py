"""What a package file really is, read from its content and never from its name.

The files come out of guests, so each is first looked at as a hostile thing: it must be a plain file, its name
must be one that its content would have been given, and nothing it says may reach an index unchecked.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cleanroom_base.errors import InputError
from cleanroom_base.run import CommandError, Completed, OutputLimitExceeded, run
from cleanroom_master.publish import control, storage
from cleanroom_master.publish.package import PackageFile, file_path

_TIMEOUT = 120.0
# Unpacking a large package, to see that it is whole, takes its time.
_UNPACK_TIMEOUT = 900.0
_DATA_LIMIT = 1024 * 1024
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._~^-]{0,250}")
_DEBIAN_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")
_DEBIAN_VERSION = re.compile(r"(?:[0-9]{1,9}:)?[0-9][A-Za-z0-9+.~-]{0,200}")
_DEBIAN_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_RPM_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9+._~^-]{0,200}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Only a repository may say these; a package that brings them along is not believed.
_OF_THE_REPOSITORY = {"filename", "size", "md5sum", "sha1", "sha256", "sha512", "description-md5", "status"}
_OF_THE_SOURCES = {"source", "directory", "files", "checksums-sha1", "checksums-sha256", "package-list-md5"}
_RPM_QUERY = "%{NAME}\\n%{EPOCH}\\n%{VERSION}\\n%{RELEASE}\\n%{ARCH}\\n%{SOURCEPACKAGE}\\n"
_RPM_INDEXES = ("primary", "filelists", "other")


def inspect(file: Path, *, checked: tuple[str, str, str] | None = None) -> PackageFile:
    """Read a .deb, .dsc or .rpm file; `checked` is what `check_rpm` has just said of an rpm.

    Raises InputError when it is a link, is not what its suffix says, or when name and content disagree.
    """
    check_file_name(file.name)
    with storage.reported(f"reading {file.name}"):
        sha256, size = hash_file(file)
    match file.suffix:
        case ".deb":
            return _inspect_deb(file, sha256, size)
        case ".dsc":
            return _inspect_dsc(file, sha256, size)
        case ".rpm":
            return _inspect_rpm(file, sha256, size, checked or check_rpm(file, file.name))
    raise InputError(f"{file.name} is no package: its name must end in .deb, .dsc or .rpm")


def check_file_name(name: str) -> None:
    """Refuse a name that is not safe as a part of a path and of an address; raises InputError."""
    if not _FILE_NAME.fullmatch(name):
        raise InputError(f"{name!r} is no acceptable name of a file")


def check_rpm(file: Path, name: str) -> tuple[str, str, str]:
    """The name, complete version and architecture of an rpm in a file, which has a name of its own.

    Raises InputError when it is no whole rpm, or not the one that `name` says.
    """
    header = _read_rpm_header(file, name)
    with tempfile.TemporaryDirectory() as database:
        command: list[str | Path] = ["rpm", "--dbpath", database, "--checksig", "--nosignature", file]
        _read_with(command, name, "whole rpm", timeout=_UNPACK_TIMEOUT)
    return header


def hash_file(file: Path) -> tuple[str, int]:
    """The sha256 and the size of a plain file; raises InputError for a link or anything else."""
    digest = hashlib.sha256()
    size = 0
    with open_plain(file) as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def open_plain(file: Path) -> io.BufferedReader:
    """Open a plain file for reading; raises InputError for a link or anything else."""
    if not stat.S_ISREG(file.lstat().st_mode):
        raise InputError(f"{file.name} is no plain file")
    return os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW), "rb")


def _inspect_deb(file: Path, sha256: str, size: int) -> PackageFile:
    completed = _read_with(["dpkg-deb", "--field", file], file.name, "Debian package")
    fields = control.parse(completed.stdout)
    name = _field(fields, "Package", _DEBIAN_NAME)
    version = _field(fields, "Version", _DEBIAN_VERSION)
    architecture = _field(fields, "Architecture", _DEBIAN_ARCHITECTURE)
    _check_name(file.name, f"{name}_{_without_epoch(version)}_{architecture}.deb")
    _check_deb_data(file)
    kept = {field: value for field, value in fields.items() if field.lower() not in _OF_THE_REPOSITORY}
    stanza = control.write(
        {**kept, "Filename": file_path(name, sha256, file.name), "Size": str(size), "SHA256": sha256}
    )
    return PackageFile("deb", file.name, sha256, sha256, size, name, version, architecture, {"Packages": stanza}, {})


def _check_deb_data(file: Path) -> None:
    """Unpack the package's files to nowhere: a package that was cut off has good control data."""
    try:
        with Path(os.devnull).open("wb") as nowhere:
            run(["dpkg-deb", "--fsys-tarfile", file], stdout=nowhere, timeout=_UNPACK_TIMEOUT)
    except CommandError as error:
        raise InputError(f"{file.name} is no whole Debian package") from error


def _inspect_dsc(file: Path, sha256: str, size: int) -> PackageFile:
    if size > _DATA_LIMIT:
        raise InputError(f"{file.name} is too large to describe a source package")
    fields = control.parse(file.read_bytes())
    name = _field(fields, "Source", _DEBIAN_NAME)
    version = _field(fields, "Version", _DEBIAN_VERSION)
    _check_name(file.name, f"{name}_{_without_epoch(version)}.dsc")
    companions: dict[str, str] = {}
    checksums = [f" {sha256} {size} {file.name}"]
    for line in fields.get("Checksums-Sha256", "").split("\n")[1:]:
        words = line.split()
        if len(words) != 3 or not _SHA256.fullmatch(words[0]) or not words[1].isdecimal():
            raise InputError(f"{file.name} has a checksum that is none: {line[:120]!r}")
        check_file_name(words[2])
        if not words[2].startswith(f"{name}_"):
            raise InputError(f"{file.name} names a file of another source package: {words[2]}")
        companions[words[2]] = words[0]
        checksums.append(f" {' '.join(words)}")
    if not companions:
        raise InputError(f"{file.name} names no files with their sha256")
    unwanted = _OF_THE_REPOSITORY | _OF_THE_SOURCES
    stanza = control.write(
        {
            "Package": name,
            **{field: value for field, value in fields.items() if field.lower() not in unwanted},
            "Directory": str(Path(file_path(name, sha256, file.name)).parent),
            "Checksums-Sha256": "\n" + "\n".join(checksums),
        }
    )
    return PackageFile("dsc", file.name, sha256, sha256, size, name, version, "source", {"Sources": stanza}, companions)


def _inspect_rpm(file: Path, sha256: str, size: int, checked: tuple[str, str, str]) -> PackageFile:
    name, version, architecture = checked
    entries = _rpm_entries(file, file_path(name, sha256, file.name))
    return PackageFile("rpm", file.name, sha256, sha256, size, name, version, architecture, entries, {})


def _read_rpm_header(file: Path, file_name: str) -> tuple[str, str, str]:
    with tempfile.TemporaryDirectory() as database:
        command = ["rpm", "--dbpath", database, "--query", "--package", "--nosignature"]
        completed = _read_with([*command, "--queryformat", _RPM_QUERY, file], file_name, "rpm")
    words = completed.text.split("\n")
    if len(words) != 7:
        raise InputError(f"{file_name} has a line break in its name or version")
    name, epoch, version, release, machine, is_source = words[:6]
    architecture = "src" if is_source == "1" else machine
    for word in (name, version, release, architecture):
        if not _RPM_WORD.fullmatch(word):
            raise InputError(f"{file_name} calls itself {word!r}, which is no acceptable name or version")
    _check_name(file_name, f"{name}-{version}-{release}.{architecture}.rpm")
    prefix = "" if epoch in ("(none)", "0") else f"{int(epoch)}:"
    return name, f"{prefix}{version}-{release}", architecture


def _rpm_entries(file: Path, path: str) -> dict[str, str]:
    """The rpm's own element of each index, as createrepo_c writes it."""
    with tempfile.TemporaryDirectory(dir=file.parent) as directory:
        root = Path(directory)
        storage.link(file, root / path)
        command = ["createrepo_c", "--quiet", "--no-database", "--simple-md-filenames"]
        run([*command, "--general-compress-type=gz", root], timeout=_TIMEOUT)
        elements = {index: _element(root / "repodata" / f"{index}.xml.gz") for index in _RPM_INDEXES}
    if not all(elements.values()):
        raise InputError(f"{file.name} cannot be listed: createrepo_c leaves it out")
    return elements


def _element(index: Path) -> str:
    """The only `<package>` element, with its line's end; empty when there is none."""
    text = gzip.decompress(index.read_bytes()).decode()
    _, opening, rest = text.partition("<package ")
    inside, closing, _ = rest.rpartition("</package>\n")
    return opening + inside + closing


def _read_with(command: Sequence[str | Path], name: str, what: str, *, timeout: float = _TIMEOUT) -> Completed:
    try:
        return run(command, timeout=timeout, capture_limit=_DATA_LIMIT)
    except (CommandError, OutputLimitExceeded) as error:
        raise InputError(f"{name} is no {what}") from error


def _field(fields: dict[str, str], name: str, allowed: re.Pattern[str]) -> str:
    value = fields.get(name, "").strip()
    if not allowed.fullmatch(value):
        raise InputError(f"the control data has no acceptable {name}: {value[:120]!r}")
    return value


def _without_epoch(version: str) -> str:
    return version.partition(":")[2] or version


def _check_name(name: str, expected: str) -> None:
    if name != expected:
        raise InputError(f"{name} is really {expected}: its name and its content disagree")

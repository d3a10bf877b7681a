"""What comes out of a guest as artifacts: checked, hashed and put in its place.

The guest may be hostile: its product ran there as it liked. So each file must be a regular file with a safe
name, be of a format that its builder makes, and be what its name says; that is read from its content with
dpkg-deb and rpm, as a user without rights.

Formats: deb(5), deb-src-control(5) (.dsc), deb-changes(5), deb-buildinfo(5); RPM's own tags.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cleanroom_base.errors import ProductError
from cleanroom_base.run import CommandError, CommandTimedOut, Completed, OutputLimitExceeded, run
from cleanroom_recipes import names
from cleanroom_recipes.model import Builder
from cleanroom_workers import room

_TOOL_TIMEOUT = 60.0
_TOOL_OUTPUT_LIMIT = 1 << 20
_CONTROL_LIMIT = 4 << 20
_CHUNK = 1 << 20
_COUNT_LIMIT = 2000
_NOBODY = "nobody"

_FIELD = re.compile(r"([A-Za-z0-9-]+):[ \t]*(.*)")
_SOURCE_FILE = re.compile(r".*\.(tar\.(gz|xz|bz2|lzma|zst)|diff\.gz)")
_RPM_QUERY = r"%{NAME}\n%{EPOCHNUM}\n%{VERSION}\n%{RELEASE}\n%{ARCH}\n%{SOURCERPM}\n"
# How files of these names begin. Sources: RFC 1952, the formats' own specifications.
_MAGIC = {
    ".gz": b"\x1f\x8b",
    ".tgz": b"\x1f\x8b",
    ".xz": b"\xfd7zXZ\0",
    ".bz2": b"BZh",
    ".zst": b"\x28\xb5\x2f\xfd",
    ".zip": b"PK",
    ".whl": b"PK",
    ".jar": b"PK",
    ".deb": b"!<arch>\n",
    ".rpm": b"\xed\xab\xee\xdb",
}


class BadArtifact(ProductError):
    """A file that a build made is not what it may be."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A file that is what it says. The last three are None where its format has none."""

    path: Path
    format: str
    size: int
    sha256: str
    package: str | None = None
    version: str | None = None
    architecture: str | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """All artifacts of a build, and the one version that they have (None: the format has none)."""

    files: tuple[Checked, ...]
    version: str | None


def check(files: Sequence[Path], builder: Builder) -> Collection:
    """Look at every file that a build made. Raises BadArtifact, InfrastructureError."""
    if not files:
        raise BadArtifact("the build made no artifacts")
    if len(files) > _COUNT_LIMIT:
        raise BadArtifact(f"the build made {len(files)} artifacts; at most {_COUNT_LIMIT} are allowed")
    for file in files:
        _check_name(file)
    if builder is Builder.DEB:
        return _check_debian([*files])
    if builder is Builder.RPM:
        return _check_rpms([*files])
    return Collection(tuple(_plain(file) for file in sorted(files)), None)


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _check_name(file: Path) -> None:
    if not names.is_name(names.FILE, file.name):
        raise BadArtifact(f"an artifact's name is not allowed: {file.name[:200]!r}")
    if file.is_symlink() or not file.is_file():
        raise BadArtifact(f"{file.name} is not a regular file")


def _plain(file: Path, form: str = "file") -> Checked:
    magic = _MAGIC.get(file.suffix)
    if magic is not None:
        with file.open("rb") as stream:
            if stream.read(len(magic)) != magic:
                raise BadArtifact(f"{file.name} is not what its name says: it does not begin like one")
    return Checked(file, form, file.stat().st_size, sha256(file))


# -- Debian ------------------------------------------------------------------------------------------------


def _check_debian(files: list[Path]) -> Collection:
    checked = [_debian(file) for file in sorted(files)]
    changes = [one for one in checked if one.format == "changes"]
    if len(changes) != 1:
        raise BadArtifact(f"the build made {len(changes)} .changes files instead of one")
    _check_listed(changes[0], checked)
    descriptions = [one for one in checked if one.format == "dsc"]
    for description in descriptions:
        _check_listed(description, checked)
        if description.version != changes[0].version:
            raise BadArtifact(f"{description.path.name} is of another version than {changes[0].path.name}")
    sources = {name for one in descriptions for name in _listed(_control(one.path))}
    for one in checked:
        if one.format == "source" and one.path.name not in sources:
            raise BadArtifact(f"{one.path.name} belongs to no .dsc")
    return Collection(tuple(checked), changes[0].version)


def _debian(file: Path) -> Checked:
    if file.suffix in (".deb", ".udeb"):
        return _deb(file)
    if file.suffix in (".dsc", ".changes", ".buildinfo"):
        return _debian_control_file(file)
    if _SOURCE_FILE.fullmatch(file.name):
        return _plain(file, "source")
    raise BadArtifact(f"{file.name} is nothing that a Debian build makes")


def _deb(file: Path) -> Checked:
    wanted = ("Package", "Version", "Architecture")
    shown = _ask(file, ["dpkg-deb", "--field", "/dev/stdin", *wanted], "a Debian package")
    fields = _fields(shown.text)
    if not all(fields.get(name.lower()) for name in wanted):
        raise BadArtifact(f"{file.name} is not a whole Debian package")
    package, version, architecture = (fields[name.lower()] for name in wanted)
    _must_be_called(file, f"{package}_{_without_epoch(version)}_{architecture}{file.suffix}")
    return Checked(file, file.suffix[1:], file.stat().st_size, sha256(file), package, version, architecture)


def _debian_control_file(file: Path) -> Checked:
    fields = _control(file)
    source, version = fields.get("source", "").split(" ")[0], fields.get("version", "")
    if not source or not names.is_name(names.VERSION, version):
        raise BadArtifact(f"{file.name} has no Source and Version")
    begin = f"{source}_{_without_epoch(version)}"
    if file.suffix == ".dsc":
        _must_be_called(file, f"{begin}.dsc")
    elif not (file.name.startswith(f"{begin}_") and "_" not in file.stem[len(begin) + 1 :]):
        raise BadArtifact(f"{file.name} is not what its name says: it is about {source} {version}")
    size = file.stat().st_size
    architecture = fields.get("architecture", "")[:200] or None
    return Checked(file, file.suffix[1:], size, sha256(file), source, version, architecture)


def _check_listed(lister: Checked, present: Sequence[Checked]) -> None:
    """Whether the files that a .dsc or .changes lists are there with the sums that it says."""
    by_name = {one.path.name: one for one in present}
    for name, digest in _listed(_control(lister.path)).items():
        if name not in by_name:
            raise BadArtifact(f"{lister.path.name} lists {name[:200]}, which is not there")
        if by_name[name].sha256 != digest:
            raise BadArtifact(f"{lister.path.name} says another checksum of {name} than it has")


def _listed(fields: Mapping[str, str]) -> dict[str, str]:
    """The files of a Checksums-Sha256 field and their sums."""
    rows = [line.split() for line in fields.get("checksums-sha256", "").splitlines() if line.strip()]
    return {row[2]: row[0] for row in rows if len(row) == 3}


def _control(file: Path) -> dict[str, str]:
    if file.stat().st_size > _CONTROL_LIMIT:
        raise BadArtifact(f"{file.name} is larger than it may be")
    return _fields(file.read_text(encoding="utf-8", errors="replace"))


def _fields(text: str) -> dict[str, str]:
    """The fields of the first paragraph, names in lower case. Source of the format: deb822(5)."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.split("\n"):
        if not line.strip():
            if fields:
                break
        elif line[0] in " \t" and name:
            fields[name] += "\n" + line.strip()
        elif found := _FIELD.fullmatch(line):
            name = found[1].lower()
            fields[name] = found[2].strip()
    return fields


# -- RPM ---------------------------------------------------------------------------------------------------


def _check_rpms(files: list[Path]) -> Collection:
    checked = [_rpm(file) for file in sorted(files)]
    sources = [one for one in checked if one.format == "source-rpm"]
    if len(sources) != 1:
        raise BadArtifact(f"the build made {len(sources)} source packages instead of one")
    return Collection(tuple(checked), sources[0].version)


def _rpm(file: Path) -> Checked:
    if file.suffix == ".buildinfo":
        return _build_information(file)
    if file.suffix != ".rpm":
        raise BadArtifact(f"{file.name} is nothing that an RPM build makes")
    command = ["rpm", "--query", "--package", "--nosignature", f"--queryformat={_RPM_QUERY}", "/dev/stdin"]
    lines = _ask(file, command, "an RPM package").text.splitlines()
    if len(lines) != 6:
        raise BadArtifact(f"{file.name} is not a whole RPM package")
    name, epoch, version, release, architecture, source = lines
    # A binary package names its source package; a source package has none, and is for no architecture, though
    # its header has that of the machine that made it.
    is_source = source == "(none)"
    architecture = "src" if is_source else architecture
    _must_be_called(file, f"{name}-{version}-{release}.{architecture}.rpm")
    full = f"{version}-{release}" if epoch == "0" else f"{epoch}:{version}-{release}"
    form = "source-rpm" if is_source else "rpm"
    return Checked(file, form, file.stat().st_size, sha256(file), name, full, architecture)


def _build_information(file: Path) -> Checked:
    """Our record of what was installed when an RPM was built, written in the form of deb-buildinfo(5)."""
    fields = _control(file)
    source, version = fields.get("source", ""), fields.get("version", "")
    _must_be_called(file, f"{source}-{_without_epoch(version)}.buildinfo")
    return Checked(file, "buildinfo", file.stat().st_size, sha256(file), source, version)


def _must_be_called(file: Path, name: str) -> None:
    if file.name != name:
        raise BadArtifact(f"{file.name} is not what its name says: by its content it is {name[:200]}")


def _without_epoch(version: str) -> str:
    return version.partition(":")[2] if ":" in version else version


def _ask(file: Path, command: list[str], what: str) -> Completed:
    """Have a tool read the file, given as its standard input, without this process's rights.

    Raises BadArtifact, or DiskFull where it may have failed for that: some write temporary files.
    """
    file.chmod(0o644)
    user = _NOBODY if os.geteuid() == 0 else None
    try:
        with file.open("rb") as stream:
            return run(
                command,
                timeout=_TOOL_TIMEOUT,
                stdin=stream,
                environment={"LC_ALL": "C.UTF-8"},
                capture_limit=_TOOL_OUTPUT_LIMIT,
                user=user,
            )
    except (CommandError, CommandTimedOut, OutputLimitExceeded) as error:
        if room.exhausted(Path(tempfile.gettempdir())):
            raise room.DiskFull(f"{file.name} could not be read: the disk is full", hint="make room") from error
        raise BadArtifact(f"{file.name} is not {what}") from error

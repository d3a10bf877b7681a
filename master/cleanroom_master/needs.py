"""Which packages a build used, and which its own packages name, read from its artifacts.

The files came out of a guest: what is read is bounded, and what is no name of a package is left out.

Sources of the formats: deb-buildinfo(5), deb-control(5), rpm(8).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cleanroom_base.errors import CleanroomError
from cleanroom_base.run import run
from cleanroom_db.phases import NewArtifact
from cleanroom_db.states import DependencyOrigin
from cleanroom_recipes import names

_TIMEOUT = 30.0
_READ_LIMIT = 4 << 20
# More than any real build has, and few enough to be rows.
_NAMES = 5000
_PACKAGES = 100
_USED = "Installed-Build-Depends:"
_RPM_NAME = r"[A-Za-z0-9_][A-Za-z0-9+._-]{0,127}"


def read(artifacts: Iterable[NewArtifact], place: Callable[[str], Path]) -> list[tuple[DependencyOrigin, str]]:
    """What the artifacts of a build say that it needs; `place` finds a file by its digest.

    A file that cannot be read says nothing: what is published is decided elsewhere.
    """
    found: dict[tuple[DependencyOrigin, str], None] = {}
    packages = 0
    for artifact in artifacts:
        file = place(artifact.sha256)
        try:
            if artifact.file.endswith(".buildinfo"):
                found |= dict.fromkeys((DependencyOrigin.BUILD, name) for name in used(_start(file)))
            elif artifact.kind in ("deb", "rpm") and packages < _PACKAGES:
                packages += 1
                read_package = _deb if artifact.kind == "deb" else _rpm
                found |= dict.fromkeys((DependencyOrigin.PACKAGE, name) for name in read_package(file))
        except (CleanroomError, OSError):
            continue
    return list(found)[:_NAMES]


def used(buildinfo: str) -> Iterator[str]:
    """The packages that were installed while a build ran, by its .buildinfo."""
    _, _, after = buildinfo.partition(f"\n{_USED}")
    for line in after.split("\n")[1:]:
        if not line.startswith(" "):
            return
        name = line.strip().partition(" ")[0].partition(":")[0]
        if names.is_name(names.DEBIAN_PACKAGE, name):
            yield name


def named(relation: str) -> Iterator[str]:
    """The packages that a field such as Depends names, all alternatives among them."""
    for part in re.split(r"[,|\n]", relation):
        name = re.split(r"[\s(:\[<]", part.strip(), maxsplit=1)[0]
        if names.is_name(names.DEBIAN_PACKAGE, name):
            yield name


def _start(file: Path) -> str:
    with file.open("rb") as stream:
        return stream.read(_READ_LIMIT).decode(errors="replace")


def _deb(file: Path) -> Iterator[str]:
    for field in ("Depends", "Pre-Depends"):
        yield from named(run(["dpkg-deb", "--field", file, field], timeout=_TIMEOUT, capture_limit=_READ_LIMIT).text)


def _rpm(file: Path) -> Iterator[str]:
    command = ["rpm", "--query", "--package", "--nosignature", "--nodigest", "--requires"]
    for line in run([*command, file], timeout=_TIMEOUT, capture_limit=_READ_LIMIT).text.splitlines():
        name = line.partition(" ")[0]
        if names.is_name(_RPM_NAME, name):
            yield name

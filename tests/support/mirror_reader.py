"""A client's look at a mirror: whether all that is named is there, as it is named."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path
from xml.etree import ElementTree

_REPO = "{http://linux.duke.edu/metadata/repo}"
_COMMON = "{http://linux.duke.edu/metadata/common}"


def missing(root: Path) -> list[str]:
    """What clients of apt and dnf would ask for and not get from a directory with a mirror; what is there is read."""
    return [*_of_apt(root / "apt"), *(name for place in root.glob("yum/*/*") for name in _of_dnf(place))]


def packages(root: Path) -> set[str]:
    """The names of the packages' files that clients find."""
    return {file.rpartition("/")[2] for file in [*_apt_files(root / "apt", []), *_yum_files(root)]}


def _of_apt(root: Path) -> list[str]:
    problems: list[str] = []
    for file in _apt_files(root, problems):
        if not (root / file).is_file():
            problems.append(file)
    return problems


def _apt_files(root: Path, problems: list[str]) -> list[str]:
    found = []
    for release in root.glob("dists/*/InRelease"):
        text = release.read_text()
        for digest, name in re.findall(r"^ ([0-9a-f]{64}) +[0-9]+ (\S+/Packages\.gz)$", text, re.MULTILINE):
            index = release.parent / Path(name).parent / "by-hash/SHA256" / digest
            if not index.is_file() or hashlib.sha256(index.read_bytes()).hexdigest() != digest:
                problems.append(str(index))
                continue
            stanzas = gzip.decompress(index.read_bytes()).decode()
            found += re.findall(r"^Filename: (\S+)$", stanzas, re.MULTILINE)
    return found


def _of_dnf(root: Path) -> list[str]:
    if not (root / "repodata/repomd.xml").is_file():
        return []
    states = re.findall(r"/(states/[0-9a-f]+)/$", _mirrors(root), re.MULTILINE)
    lost = [name for place in (".", *states) for name in _lost(root / place)]
    return lost or [name for name in _rpms(root) if not (root / name).is_file()]


def _lost(root: Path) -> list[str]:
    """What a repomd.xml names and is not there."""
    repomd = root / "repodata/repomd.xml"
    if not repomd.is_file() or not repomd.with_name("repomd.xml.asc").is_file():
        return [str(repomd)]
    named = [part.get("href", "") for part in ElementTree.parse(repomd).iter(f"{_REPO}location")]
    return [str(root / name) for name in named if not (root / name).is_file()]


def _mirrors(root: Path) -> str:
    return (root / "mirrorlist").read_text() if (root / "mirrorlist").is_file() else ""


def _yum_files(root: Path) -> list[str]:
    return [name for place in root.glob("yum/*/*") for name in _rpms(place)]


def _rpms(root: Path) -> list[str]:
    (primary,) = [
        part.get("href", "")
        for part in ElementTree.parse(root / "repodata/repomd.xml").iter(f"{_REPO}location")
        if part.get("href", "").endswith("-primary.xml.gz")
    ]
    listed = ElementTree.fromstring(gzip.decompress((root / primary).read_bytes()))
    return [part.get("href", "") for part in listed.iter(f"{_COMMON}location")]

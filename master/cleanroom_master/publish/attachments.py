"""What is published beside a package: its signed provenance and its bill of materials.

They are kept under the checksum of the package, and have names beside it that begin with its own. Packages of one build
share one signed statement: it is one file with several names.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Set
from pathlib import Path

from cleanroom_base.errors import Problem
from cleanroom_master.publish import storage

PROVENANCE = ".intoto.jsonl"
BILL = ".cdx.json"
SUFFIXES = (PROVENANCE, BILL)


class Attachments:
    """The attachments of packages, below a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def of(self, sha256: str) -> dict[str, Path]:
        """The attachments of a package by their suffixes; empty where it has none, or not all of them."""
        files = {suffix: self.path(sha256, suffix) for suffix in SUFFIXES}
        return files if all(file.is_file() for file in files.values()) else {}

    def keep(self, suffix: str, content: bytes, packages: Iterable[str]) -> None:
        """Keep an attachment of some packages, given by their checksums, in the place of the one that they had."""
        storage.make_lasting_directory(self._directory)
        with tempfile.TemporaryDirectory(dir=self._directory, prefix=".") as scratch:
            # A name of its own while it is written: two releases may bring the same package at once.
            fresh = Path(scratch, "fresh")
            storage.write(fresh, content)
            storage.flush_file(fresh)
            for sha256 in packages:
                place = self.path(sha256, suffix)
                storage.make_lasting_directory(place.parent)
                link = Path(scratch, sha256)
                storage.link(fresh, link)
                link.rename(place)
                storage.flush(place.parent)

    def place(self, sha256: str, address: Path) -> bool:
        """Give the attachments of a package their names beside its address; says whether one was missing."""
        missing = {file: name for file, name in self._names(sha256, address) if not _one_file(file, name)}
        for file, name in missing.items():
            storage.remove(name)
            storage.link(file, name)
        return bool(missing)

    def problems(self, sha256: str, address: Path, place: str) -> Iterable[Problem]:
        """What is wrong with the names beside an address, which is called `place`."""
        for file, name in self._names(sha256, address):
            if not _one_file(file, name):
                yield Problem(
                    f"{place}{name.name.removeprefix(address.name)}", "is not what was signed for the package"
                )

    def remove_unneeded(self, published: Set[str], *, before: float) -> None:
        """Remove the attachments of packages that are not among these, and that came before a time (seconds since
        1970).
        """
        for file in self._directory.glob("[0-9a-f][0-9a-f]/*"):
            if file.name[:64] not in published and file.stat().st_mtime < before:
                storage.remove(file)

    def _names(self, sha256: str, address: Path) -> Iterable[tuple[Path, Path]]:
        return ((file, beside(address, suffix)) for suffix, file in self.of(sha256).items())

    def path(self, sha256: str, suffix: str) -> Path:
        """Where an attachment of a package is kept, or would be."""
        return self._directory / sha256[:2] / f"{sha256}{suffix}"


def beside(address: Path, suffix: str) -> Path:
    """The name of an attachment of the package at an address."""
    return address.with_name(address.name + suffix)


def _one_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except FileNotFoundError:
        return False

"""Packages by their content: what each needs, provides and excludes, and all of its files.

A row is written once for a content (its SHA-256), whichever release, channel or target it turns up in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice

from cleanroom_db.connection import Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load

_SQL = load("packages")
_BATCH = 10_000


class FileType(StrEnum):
    """What a path of a package is. A hard link is a file."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A path of a package, absolute. `digest` is in hexadecimal, of regular files; `target` is that of a link."""

    path: str
    type: FileType
    mode: int
    size: int
    digest: str | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class PackageContents:
    """What a package says of itself. `relations` is what the solver reads; `problem` says why no files are known."""

    format: str
    name: str
    version: str
    architecture: str
    relations: str
    files: Sequence[PackagedFile] = ()
    diverts: tuple[str, ...] = field(default=())
    problem: str | None = None


@dataclass(frozen=True)
class KnownPackage(Entity):
    """A package whose content was read. `problem` None: all of its files are known."""

    id: int
    sha256: str
    format: str
    name: str
    version: str
    architecture: str
    relations: str
    diverts: tuple[str, ...]
    problem: str | None


def unknown(database: Database, digests: Iterable[str]) -> list[str]:
    """Those of some packages, by their SHA-256, that were not read yet, in their order."""
    wanted = list(dict.fromkeys(digests))
    with database.transaction() as cursor:
        known = {row["sha256"] for row in cursor.rows(_SQL["known"], digests=wanted)}
    return [digest for digest in wanted if digest not in known]


def record(database: Database, sha256: str, contents: PackageContents) -> None:
    """Note what a package holds; to note it twice is no harm."""
    with database.transaction() as cursor:
        package = cursor.value(
            _SQL["insert"],
            sha256=sha256,
            format=contents.format,
            name=plain(contents.name),
            version=plain(contents.version),
            architecture=plain(contents.architecture),
            relations=plain(contents.relations),
            diverts=[plain(path) for path in contents.diverts],
            problem=None if contents.problem is None else plain(contents.problem),
        )
        if package is None:
            return
        keyed = sorted(((path_digest(file.path), file) for file in contents.files), key=lambda pair: pair[0])
        iterator = iter(keyed)
        while batch := list(islice(iterator, _BATCH)):
            digests = [digest for digest, _ in batch]
            files = [file for _, file in batch]
            cursor.execute(_SQL["insert_paths"], digests=digests, paths=[plain(file.path) for file in files])
            cursor.execute(
                _SQL["insert_files"],
                package=package,
                digests=digests,
                types=[str(file.type) for file in files],
                modes=[file.mode for file in files],
                sizes=[file.size for file in files],
                contents=[file.digest for file in files],
                targets=[None if file.target is None else plain(file.target) for file in files],
            )


def get(database: Database, sha256: str) -> KnownPackage | None:
    """What is known of a package; None: it was not read."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["get"], sha256=sha256)
    return None if row is None else KnownPackage.from_row(row)


def files(database: Database, sha256: str) -> list[PackagedFile]:
    """The files of a package, by path."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["files"], sha256=sha256)
    return [
        PackagedFile(row["path"], FileType(row["type"]), row["mode"], row["size"], row["digest"], row["target"])
        for row in rows
    ]


def path_digest(path: str) -> str:
    """The digest by which a path is found, in hexadecimal; of paths that are not UTF-8 too."""
    return hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()

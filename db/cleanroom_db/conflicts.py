"""Conflicts: what was found when a release was looked at together with its channel and with those beside it.

What is looked at is a place: what a consumer of a channel gets on one image, from all builders. Finding out is not done
here (it takes a solver); this reads what is needed for it, and keeps what came of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from cleanroom_db.connection import Cursor, Database, Row, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_recipes.model import Builder, Gate

_SQL = load("conflicts")
# Pairs of packages with the same files; more than a person reads.
_SHARED = 1000
_PRUNED = 200


class ConflictKind(StrEnum):
    """A path in two packages, packages that cannot be installed, or one that cannot be read."""

    FILE = "file"
    DEPENDENCY = "dependency"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Place:
    """A channel on an image: what a consumer there subscribes to, whoever built it."""

    channel: str
    image: str

    @classmethod
    def of(cls, channel: str, target: str) -> Place:
        """The place of a target (`image/builder`)."""
        return cls(channel, target.partition("/")[0])

    @property
    def targets(self) -> list[str]:
        """Its targets."""
        return [f"{self.image}/{builder}" for builder in Builder]


@dataclass(frozen=True)
class CandidatePackage(Entity):
    """A package of a candidate. `id` and what follows are None until it was read."""

    attempt: int
    file: str
    sha256: str
    kind: str
    id: int | None
    name: str | None
    version: str | None
    architecture: str | None
    relations: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A release on its way into a channel, with its packages by target."""

    release: int
    product: str
    ref: str
    packages: Mapping[str, tuple[CandidatePackage, ...]]

    def of(self, form: str) -> list[CandidatePackage]:
        """Its packages of one format that could be read."""
        return [one for some in self.packages.values() for one in some if one.kind == form and one.problem is None]


@dataclass(frozen=True)
class PublishedPackage(Entity):
    """A published package whose content was not read yet."""

    built_sha256: str
    sha256: str
    file: str
    format: str
    name: str
    version: str
    architecture: str


@dataclass(frozen=True)
class Shared(Entity):
    """Two packages with paths in common: how many, and the first of them."""

    package: int
    other: int
    number: int
    path: str


@dataclass(frozen=True)
class UnionMember(Entity):
    """A package that is installed with others; `published` is the digest of its bytes as published, if it is."""

    id: int
    name: str
    sha256: str
    file: str
    published: str | None


@dataclass(frozen=True)
class Conflict(Entity):
    """One thing that breaks. `other` None: no other package has part in it; `with_release` None: no candidate has."""

    kind: ConflictKind
    package: str
    other: str | None
    with_release: int | None
    subject: str
    why: str
    with_product: str | None = None
    with_ref: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """What was found for one target of a release among so many packages; `note` says what was not looked at."""

    target: str
    basis: str
    packages: int
    note: str = ""
    conflicts: tuple[Conflict, ...] = field(default=())


def candidates(database: Database, place: Place, checked: Sequence[int]) -> list[Candidate]:
    """The releases that are looked at, and those that wait for publication beside them, oldest first."""
    with database.transaction() as cursor:
        builds = cursor.rows(
            _SQL["candidates"], channel=place.channel, targets=place.targets, checked=list(dict.fromkeys(checked))
        )
        attempts = [build["attempt"] for build in builds]
        packages = [CandidatePackage.from_row(row) for row in cursor.rows(_SQL["packages"], attempts=attempts)]
    by_release: dict[int, list[Row]] = {}
    for build in builds:
        by_release.setdefault(build["release"], []).append(build)
    return [
        Candidate(
            release,
            rows[0]["product"],
            rows[0]["ref"],
            {
                row["target"]: tuple(package for package in packages if package.attempt == row["attempt"])
                for row in rows
            },
        )
        for release, rows in by_release.items()
    ]


def basis(database: Database, place: Place, together: Iterable[Candidate]) -> str:
    """A digest of all that a check looks at: while it is the same, so is what a check finds."""
    with database.transaction() as cursor:
        mark = cursor.row(_SQL["mark"], channel=place.channel, targets=place.targets)
    assert mark is not None
    content = [
        [place.channel, place.image, mark["packages"], mark["newest"], mark["total"]],
        sorted(
            (one.release, sorted(package.sha256 for some in one.packages.values() for package in some))
            for one in together
        ),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def unread(database: Database, place: Place | None = None, *, limit: int = 1000) -> list[PublishedPackage]:
    """Packages that are published, in a place or anywhere, and whose content was not read yet."""
    with database.transaction() as cursor:
        rows = cursor.rows(
            _SQL["unread"],
            channel=None if place is None else place.channel,
            targets=[] if place is None else place.targets,
            limit=limit,
        )
    return [PublishedPackage.from_row(row) for row in rows]


def published(database: Database, place: Place, form: str, *, without: Iterable[int]) -> tuple[list[int], str]:
    """The packages of a format that a place has now, and what they say of themselves, in the same order."""
    with database.transaction() as cursor:
        row = cursor.row(
            _SQL["published"],
            channel=place.channel,
            targets=place.targets,
            format=form,
            without=list(without),
            # Paragraphs of control data are told apart by an empty line.
            between="" if form == "rpm" else "\n",
        )
    assert row is not None
    return row["ids"], row["text"]


def shared(database: Database, place: Place, checked: Iterable[int], together: Iterable[int]) -> list[Shared]:
    """The packages that have paths in common with those of `checked` (by their ids)."""
    with database.transaction() as cursor:
        rows = cursor.rows(
            _SQL["shared"],
            channel=place.channel,
            targets=place.targets,
            checked=list(checked),
            candidates=list(together),
            limit=_SHARED,
        )
    return [Shared.from_row(row) for row in rows]


def held_names(database: Database, place: Place, form: str) -> list[str]:
    """The names of packages of releases that are held on their way into a place."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["held_names"], channel=place.channel, targets=place.targets, format=form)
    return sorted(row["name"] for row in rows)


def named(database: Database, ids: Iterable[int]) -> dict[int, Row]:
    """The names, versions and relations of packages by their ids."""
    with database.transaction() as cursor:
        return {row["id"]: row for row in cursor.rows(_SQL["named"], ids=list(ids))}


def union_members(database: Database, place: Place, ids: Iterable[int]) -> list[UnionMember]:
    """The files of packages that a place has or is to get, by their ids."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["union_members"], channel=place.channel, targets=place.targets, ids=list(ids))
    return [UnionMember.from_row(row) for row in rows]


def record(database: Database, release: int, channel: str, check: Check) -> None:
    """Keep what was found for a target of a release, instead of what was found before."""
    key = {"release": release, "channel": channel, "target": check.target}
    with database.transaction() as cursor:
        cursor.execute(_SQL["forget"], **key)
        cursor.execute(_SQL["record"], **key, basis=check.basis, packages=check.packages, note=plain(check.note))
        rows = [
            (
                *(release, channel, check.target, one.kind, plain(one.package)),
                *(one.other, one.with_release, plain(one.subject), plain(one.why)),
            )
            for one in check.conflicts
        ]
        cursor.insert_many(_SQL["insert"], rows)


def recorded(cursor: Cursor, release: int, channel: str) -> dict[str, Check]:
    """What was last found of a release on its way into a channel, by target."""
    rows = cursor.rows(_SQL["conflicts"], release=release, channel=channel)
    return {
        check["target"]: Check(
            check["target"],
            check["basis"],
            check["packages"],
            check["note"],
            tuple(Conflict.from_row(row) for row in rows if row["target"] == check["target"]),
        )
        for check in cursor.rows(_SQL["checks"], release=release, channel=channel)
    }


def forget(cursor: Cursor, release: int) -> None:
    """Drop what was found of a release that is built again."""
    cursor.execute(_SQL["forget_all"], release=release)


def held(database: Database) -> list[tuple[int, str, list[str]]]:
    """The releases that a conflict keeps, each with its channel and the targets that have one."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["held"], gate=Gate.NO_CONFLICTS)
    return [(row["id"], row["channel"], list(row["targets"])) for row in rows]


def prune(database: Database, age: float) -> int:
    """Forget contents of packages that are neither published nor under way, `age` seconds after they were read.

    Some at a time; returns how many.
    """
    with database.transaction() as cursor:
        return cursor.execute(_SQL["prune"], age=age, limit=_PRUNED)

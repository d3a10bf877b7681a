"""Generations: the numbered states of the published repository, and the packages in each.

A generation is prepared in the record, written to the disk, switched to, and then noted as switched. A
publisher that dies between two of these finds the unswitched generation at its next start and, by looking
at the disk, says either `switched` or `discard`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cleanroom_base.errors import InputError
from cleanroom_db.connection import Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load

_SQL = load("generations")
_PUBLICATIONS = load("publications")


@dataclass(frozen=True)
class Generation(Entity):
    """One state of the whole repository. `switched_at` None: it is being written."""

    number: int
    created_at: datetime
    switched_at: datetime | None
    actor: str
    reason: str
    added: list[Mapping[str, Any]]
    removed: list[Mapping[str, Any]]


@dataclass(frozen=True)
class NewPackage:
    """A package that enters a channel. `sha256` is of the published bytes, `built_sha256` of the built ones."""

    channel: str
    target: str
    format: str
    name: str
    version: str
    architecture: str
    file: str
    sha256: str
    built_sha256: str
    size: int
    release_id: int | None


@dataclass(frozen=True)
class ChannelPackage(Entity):
    """A package in a channel. `removed_in` None: it is there."""

    id: int
    channel: str
    target: str
    format: str
    name: str
    version: str
    architecture: str
    file: str
    sha256: str
    built_sha256: str
    size: int
    release_id: int | None
    added_in: int
    removed_in: int | None


def prepare(
    database: Database,
    *,
    actor: str,
    reason: str,
    added: Iterable[NewPackage] = (),
    removed: Iterable[int] = (),
    publications: Iterable[int] = (),
    at_least: int = 1,
) -> Generation:
    """Record the next generation before it is switched to.

    `removed` are ids of channel packages, `publications` those that it fulfils; its number is the next free one,
    or `at_least`. Raises InputError if a package of that version is there already, or if another generation is
    not switched to yet.
    """
    with database.transaction() as cursor:
        row = cursor.row(_SQL["begin"], actor=plain(actor), reason=plain(reason), at_least=at_least)
        assert row is not None
        number = row["number"]
        cursor.execute(_SQL["remove_packages"], number=number, ids=list(removed))
        cursor.insert_many(_SQL["add_packages"], [_values(package, number) for package in added])
        cursor.execute(_PUBLICATIONS["attach"], generation=number, ids=list(publications))
        described = cursor.row(_SQL["describe"], number=number)
        assert described is not None
        return Generation.from_row(described)


def switched(database: Database, number: int) -> None:
    """Consumers see this generation: its publications and their releases are published. Raises InputError."""
    with database.transaction() as cursor:
        if cursor.execute(_SQL["switched"], number=number) == 0:
            raise InputError(f"generation {number} is not one that waits to be switched to")
        rows = cursor.rows(_PUBLICATIONS["published"], generation=number)
        for channel in sorted({row["channel"] for row in rows}):
            cursor.execute(
                _PUBLICATIONS["release_published"],
                ids=[row["release_id"] for row in rows if row["channel"] == channel],
                why=f"published in {channel}, generation {number}",
            )


def discard(database: Database, number: int) -> None:
    """Forget a generation that was never switched to; its publications wait again. Raises InputError."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["detach_publications"], number=number)
        cursor.execute(_SQL["discard_packages"], number=number)
        cursor.execute(_SQL["restore_packages"], number=number)
        if cursor.execute(_SQL["discard"], number=number) == 0:
            raise InputError(f"generation {number} is not one that waits to be switched to")


def unswitched(database: Database) -> Generation | None:
    """The generation that is being written, if there is one."""
    return _one(database, "unswitched")


def current(database: Database) -> Generation | None:
    """The generation that consumers see, if there is one."""
    return _one(database, "current")


def history(database: Database, *, limit: int = 100) -> list[Generation]:
    """The generations that consumers saw, newest first."""
    with database.transaction() as cursor:
        return [Generation.from_row(row) for row in cursor.rows(_SQL["history"], limit=limit)]


def contents(database: Database, number: int) -> list[ChannelPackage]:
    """All packages of a generation."""
    with database.transaction() as cursor:
        return [ChannelPackage.from_row(row) for row in cursor.rows(_SQL["contents"], number=number)]


def published_of(database: Database, *, product: str, target: str, channel: str) -> list[ChannelPackage]:
    """The packages of a product's latest release that a channel has now for a target."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["published_of"], product=product, target=target, channel=channel)
    return [ChannelPackage.from_row(row) for row in rows]


def ever_published(database: Database, package: NewPackage) -> list[ChannelPackage]:
    """Every different content that this very version of a package ever had for its target, in any channel."""
    with database.transaction() as cursor:
        rows = cursor.rows(
            _SQL["ever"],
            target=package.target,
            format=package.format,
            name=package.name,
            version=package.version,
            architecture=package.architecture,
        )
    return [ChannelPackage.from_row(row) for row in rows]


def _one(database: Database, block: str) -> Generation | None:
    with database.transaction() as cursor:
        row = cursor.row(_SQL[block])
    return None if row is None else Generation.from_row(row)


def _values(package: NewPackage, number: int) -> tuple[object, ...]:
    return (
        package.channel,
        package.target,
        package.format,
        package.name,
        package.version,
        package.architecture,
        package.file,
        package.sha256,
        package.built_sha256,
        package.size,
        package.release_id,
        number,
    )

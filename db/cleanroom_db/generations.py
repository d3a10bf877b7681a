"""Generations: the numbered states of the published repository, and the packages in each.

A generation is prepared in the record, written to the disk, switched to, and then noted as switched. A
publisher that dies between two of these finds the unswitched generation at its next start and, by looking
at the disk, says either `switched` or `discard`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cleanroom_base.errors import InputError
from cleanroom_db import canaries
from cleanroom_db.connection import Cursor, Database, Row, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import Removal

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
    withdrawn_by: int | None

    def in_generation(self, number: int) -> bool:
        """Whether a generation has it."""
        return self.added_in <= number and (self.removed_in is None or self.removed_in > number)


@dataclass(frozen=True)
class Aged:
    """A package in a channel, and since when consumers see it there."""

    package: ChannelPackage
    since: datetime


@dataclass(frozen=True)
class ChannelRelease(Entity):
    """A release in a channel. `removed_in` None: it is there. `evidence`: by what it says that it mends security."""

    id: int
    release_id: int
    channel: str
    added_in: int
    removed_in: int | None
    product: str
    ref: str
    evidence: str | None

    def in_generation(self, number: int) -> bool:
        """Whether a generation has it."""
        return self.added_in <= number and (self.removed_in is None or self.removed_in > number)

    @property
    def key(self) -> tuple[int, str]:
        """What it is, however often it came and went."""
        return self.release_id, self.channel


@dataclass(frozen=True)
class Difference:
    """What has to come and to go for one generation to become like another."""

    added: tuple[ChannelPackage, ...]
    removed: tuple[ChannelPackage, ...]
    releases_added: tuple[ChannelRelease, ...]
    releases_removed: tuple[ChannelRelease, ...]


@dataclass(frozen=True)
class WayBack:
    """What there is to know before the current generation is made like an earlier one.

    `kept_out`: what that one had and was withdrawn since. `fixes`: the releases that would go and mend security.
    """

    kept_out: tuple[ChannelPackage, ...]
    fixes: tuple[ChannelRelease, ...]


@dataclass(frozen=True)
class Leaving:
    """Releases that leave channels with a generation (their ids in `channel_release`), and why."""

    removal: Removal
    why: str
    ids: tuple[int, ...]


def prepare(
    database: Database,
    *,
    actor: str,
    reason: str,
    added: Iterable[NewPackage] = (),
    removed: Iterable[int] = (),
    publications: Iterable[int] = (),
    leaving: Iterable[Leaving] = (),
    request: int | None = None,
    withdrawing: int | None = None,
    tried: bool = False,
    at_least: int = 1,
) -> int:
    """Record the next generation before it is switched to; returns its number.

    `removed` are ids of channel packages, `publications` those that it fulfils, `request` the one that it fulfils: what
    a rollback brings back and takes away is noted when it is switched to, since that may be very much. Of the release
    `withdrawing`, no package ever comes back into the channels that it leaves. `tried`: a consumer is to install what
    is published. Its number is the next free one, or `at_least`. Raises InputError if a package of that version is
    there already, or if another generation is not switched to yet.
    """
    with database.transaction() as cursor:
        row = cursor.row(_SQL["begin"], actor=plain(actor), reason=plain(reason), at_least=at_least)
        assert row is not None
        number = row["number"]
        cursor.execute(_SQL["remove_packages"], number=number, ids=list(removed))
        cursor.insert_many(_SQL["add_packages"], [_values(package, number) for package in added])
        fulfilled = list(publications)
        cursor.execute(_PUBLICATIONS["attach"], generation=number, ids=fulfilled)
        cursor.execute(_SQL["add_published"], number=number, ids=fulfilled)
        _remove_releases(cursor, number, leaving)
        if request is not None:
            cursor.execute(_SQL["attach_request"], number=number, id=request)
        if withdrawing is not None:
            cursor.execute(_SQL["withdraw_packages"], number=number, release=withdrawing, request=request)
        if tried:
            canaries.demand(cursor, number, fulfilled)
        cursor.execute(_SQL["describe"], number=number)
    return int(number)


def switched(database: Database, number: int) -> None:
    """Consumers see this generation: its publications and their releases are published. Raises InputError."""
    with database.transaction() as cursor:
        rollback = cursor.row(_SQL["rollback"], number=number)
        if rollback is not None:
            _go_back(cursor, **rollback)
        if cursor.execute(_SQL["switched"], number=number) == 0:
            raise InputError(f"generation {number} is not one that waits to be switched to")
        cursor.execute(_PUBLICATIONS["published"], generation=number)
        for block in ("restored", "removed", "explain_releases", "finish_requests"):
            cursor.execute(_SQL[block], number=number)


def discard(database: Database, number: int) -> None:
    """Forget a generation that was never switched to; its publications wait again. Raises InputError."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["detach_publications"], number=number)
        cursor.execute(_SQL["discard_packages"], number=number)
        for block in ("restore_packages", "discard_releases", "restore_releases", "restore_withdrawn"):
            cursor.execute(_SQL[block], number=number)
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


def get(database: Database, number: int) -> Generation:
    """A generation that consumers saw. Raises InputError."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["get"], number=number)
    if row is None:
        raise InputError(
            f"there is no generation {number} that consumers saw", hint="'cleanroom repository history' lists them"
        )
    return Generation.from_row(row)


def difference(database: Database, first: int, second: int) -> Difference:
    """What the second generation has that the first has not, and the other way round."""
    with database.transaction() as cursor:
        found = cursor.rows(_SQL["changed_packages"], **_bounds(first, second))
        packages = [ChannelPackage.from_row(row) for row in found]
        came, went = _changed_releases(cursor, first, second)
    # What left and came back between the two is in both.
    before = {(*_version(one), one.sha256): one for one in packages if one.in_generation(first)}
    after = {(*_version(one), one.sha256): one for one in packages if one.in_generation(second)}
    return Difference(
        added=tuple(one for key, one in after.items() if key not in before),
        removed=tuple(one for key, one in before.items() if key not in after),
        releases_added=came,
        releases_removed=went,
    )


def way_back(database: Database, current: int, target: int) -> WayBack:
    """What is to be known of the way back from the current generation to another, however much that changes."""
    with database.transaction() as cursor:
        kept_out = cursor.rows(_SQL["kept_out"], number=target)
        _, fixes = _changed_releases(cursor, current, target, only_fixes=True)
    return WayBack(tuple(map(ChannelPackage.from_row, kept_out)), fixes)


def _go_back(cursor: Cursor, *, number: int, current: int, target: int, why: str) -> None:
    """Note what a rollback brought back and took away. What was withdrawn meanwhile stays away."""
    row = cursor.row(_SQL["way_back"], first=current, second=target, **_bounds(current, target))
    assert row is not None
    came, went = _changed_releases(cursor, current, target)
    cursor.execute(_SQL["remove_packages"], number=number, ids=row["removed"])
    cursor.execute(_SQL["bring_back"], number=number, ids=row["added"])
    withdrawn = {(one["release_id"], one["channel"]) for one in cursor.rows(_SQL["kept_out"], number=target)}
    returning = [(*one.key, number) for one in came if one.key not in withdrawn]
    cursor.insert_many(_SQL["add_releases"], returning)
    _remove_releases(cursor, number, [Leaving(Removal.ROLLBACK, why, tuple(one.id for one in went))])
    cursor.execute(_SQL["describe"], number=number)


def _remove_releases(cursor: Cursor, number: int, leaving: Iterable[Leaving]) -> None:
    for group in leaving:
        why = plain(group.why)
        cursor.execute(_SQL["remove_releases"], number=number, ids=list(group.ids), removal=group.removal, why=why)


def _changed_releases(
    cursor: Cursor, first: int, second: int, *, only_fixes: bool = False
) -> tuple[tuple[ChannelRelease, ...], tuple[ChannelRelease, ...]]:
    """The releases that only the second generation has, and those that only the first has."""
    found = cursor.rows(_SQL["changed_releases"], only_fixes=only_fixes, **_bounds(first, second))
    releases = [ChannelRelease.from_row(row) for row in found]
    before = {one.key: one for one in releases if one.in_generation(first)}
    after = {one.key: one for one in releases if one.in_generation(second)}
    return (
        tuple(one for key, one in after.items() if key not in before),
        tuple(one for key, one in before.items() if key not in after),
    )


def _bounds(first: int, second: int) -> dict[str, int]:
    return {"least": min(first, second), "most": max(first, second)}


def channels_of(database: Database, release_id: int) -> list[ChannelRelease]:
    """The channels that have a release now."""
    with database.transaction() as cursor:
        return [ChannelRelease.from_row(row) for row in cursor.rows(_SQL["channels_of_release"], release=release_id)]


def packages_of(database: Database, release_id: int, channels: Sequence[str]) -> list[ChannelPackage]:
    """The packages that a release brought into some channels and that are there now."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["packages_of_release"], release=release_id, channels=list(channels))
    return [ChannelPackage.from_row(row) for row in rows]


def shown_within(database: Database, grace: timedelta) -> set[int]:
    """The generations that consumers saw within some time until now."""
    with database.transaction() as cursor:
        return {row["number"] for row in cursor.rows(_SQL["shown_within"], grace=grace.total_seconds())}


def needed(database: Database, *, oldest: int, grace: timedelta) -> list[ChannelPackage]:
    """The packages whose files somebody may still read: those of a generation from `oldest` on, those that left within
    `grace`, and those that were never shown (they may be on their way)."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["needed"], oldest=oldest, grace=grace.total_seconds())
    return [ChannelPackage.from_row(row) for row in rows]


def aged(database: Database, channel: str) -> list[Aged]:
    """The packages that a channel has now, each since when."""
    with database.transaction() as cursor:
        return [Aged(ChannelPackage.from_row(row), row["since"]) for row in cursor.rows(_SQL["aged"], channel=channel)]


def builds(database: Database, channel: str) -> set[str]:
    """The built checksums of what a channel has now."""
    with database.transaction() as cursor:
        return {row["built_sha256"] for row in cursor.rows(_SQL["builds"], channel=channel)}


def emptied(database: Database, channel: str, going: Sequence[int]) -> list[int]:
    """The releases of a channel (their ids in `channel_release`) of which these packages are all that there is."""
    with database.transaction() as cursor:
        return [row["id"] for row in cursor.rows(_SQL["emptied"], channel=channel, ids=list(going))]


def withdrawn(database: Database, *, limit: int = 1000) -> list[Row]:
    """The packages that people withdrew, the latest first, with who did it, when and why."""
    with database.transaction() as cursor:
        return cursor.rows(_SQL["withdrawn"], limit=limit)


def origins(database: Database, packages: Sequence[tuple[str, str]]) -> list[Row]:
    """Of packages that a channel has (channel, sha256): their releases, since when, and the address of their logs."""
    columns = {"channels": [one[0] for one in packages], "digests": [one[1] for one in packages]}
    with database.transaction() as cursor:
        return cursor.rows(_SQL["origins"], **columns)


def withdrawn_among(database: Database, packages: Sequence[NewPackage]) -> list[Row]:
    """Which of these versions were withdrawn from their channel, with who did it and why."""
    with database.transaction() as cursor:
        return cursor.rows(_SQL["withdrawn_versions"], **_columns(packages, "channel"))


def present(database: Database, packages: Sequence[NewPackage]) -> set[tuple[str, ...]]:
    """Which of these versions their channels have now: channel, target, format, name, version, architecture."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["present"], **_columns(packages, "channel"))
    return {_version(ChannelPackage.from_row(row)) for row in rows}


def ever_published(database: Database, packages: Sequence[NewPackage]) -> list[ChannelPackage]:
    """Every different content that these very versions ever had for their targets, in any channel."""
    with database.transaction() as cursor:
        return [ChannelPackage.from_row(row) for row in cursor.rows(_SQL["ever"], **_columns(packages))]


def _columns(packages: Sequence[NewPackage], *more: str) -> dict[str, object]:
    """What identifies versions, as arrays of columns."""
    names = (*more, "target", "format", "name", "version", "architecture")
    return {f"{name}s": [getattr(package, name) for package in packages] for name in names}


def _version(package: ChannelPackage) -> tuple[str, ...]:
    return (package.channel, package.target, package.format, package.name, package.version, package.architecture)


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

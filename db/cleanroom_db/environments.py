"""Environments: which packages were installed when phases ended, and what two of them differ in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cleanroom_base.errors import InputError
from cleanroom_db.connection import Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import TrialPurpose

_SQL = load("environments")

_SEEN = 20
# Of an image so many of the latest phases are looked at, and so many different environments.
_PHASES = 200
_STATES = 20


@dataclass(frozen=True)
class Seen(Entity):
    """A phase that ended with an environment."""

    phase: str
    target: str
    product: str
    ref: str
    purpose: TrialPurpose | None


@dataclass(frozen=True, slots=True)
class Changed:
    """A package that differs. `before` or `now` None: it is not there."""

    name: str
    before: str | None
    now: str | None


def packages(database: Database, digest: str) -> dict[str, str]:
    """Versions by name. Raises InputError."""
    with database.transaction() as cursor:
        found = cursor.value(_SQL["packages"], digest=plain(digest))
    if found is None:
        raise InputError(f"no phase ended with the packages {digest[:100]!r}")
    return dict(found)


def of_image(database: Database, digest: str) -> dict[str, str]:
    """What an image of one content holds, as far as is known: the packages that all phases that began with it had."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["in_common"], digest=plain(digest), phases=_PHASES, states=_STATES)
    return {row["name"]: row["version"] for row in rows}


def seen(database: Database, digest: str) -> list[Seen]:
    """The first phases that ended with an environment."""
    with database.transaction() as cursor:
        return [Seen.from_row(row) for row in cursor.rows(_SQL["seen"], digest=plain(digest), limit=_SEEN)]


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[Changed]:
    """What two environments differ in, by name."""
    return [
        Changed(name, before.get(name), now.get(name))
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]

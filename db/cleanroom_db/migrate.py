"""Bring a database to this program's schema: numbered files, each applied once, in order."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.settings import Settings
from cleanroom_db import roles
from cleanroom_db.cluster import open_database
from cleanroom_db.connection import Cursor, Database
from cleanroom_db.roles import Role

# Any number will do, as long as every migrating process asks for the same lock.
_LOCK = 0x636C65616E
_FILE = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")


class SchemaMismatch(InputError):
    """The database's schema is not one that this program can work with."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    number: int
    name: str
    statements: str

    @property
    def checksum(self) -> str:
        """What tells whether the file was changed after it was applied."""
        return hashlib.sha256(self.statements.encode()).hexdigest()


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations that this program knows, in order."""
    found = []
    for file in resources.files("cleanroom_db").joinpath("migrations").iterdir():
        if match := _FILE.match(file.name):
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.number)
    if len({migration.number for migration in found}) < len(found):
        raise InfrastructureError("two migrations have the same number")
    return tuple(found)


def migrate(settings: Settings) -> list[str]:
    """Bring the site's database to this program's schema, as `apply` does."""
    database = open_database(settings, Role.OWNER)
    try:
        return apply(database)
    finally:
        database.close()


def apply(database: Database) -> list[str]:
    """Apply what is missing and set the roles' rights; return the names of what was applied.

    Safe to call at every start and by several processes at once. Raises SchemaMismatch for a database that is
    newer than this program or whose history differs from it.
    """
    applied = []
    with database.transaction() as cursor:
        _lock(cursor)
        # Migrations name them, and so do their rights.
        roles.create(cursor)
    for migration in migrations():
        with database.transaction() as cursor:
            if migration.number not in _locked_numbers(cursor):
                cursor.execute(migration.statements)
                cursor.execute(
                    "INSERT INTO cleanroom.migration (number, name, checksum)"
                    " VALUES (%(number)s, %(name)s, %(checksum)s)",
                    number=migration.number,
                    name=migration.name,
                    checksum=migration.checksum,
                )
                applied.append(f"{migration.number:04}_{migration.name}")
    with database.transaction() as cursor:
        _lock(cursor)
        roles.grant(cursor)
    return applied


def check(database: Database) -> None:
    """Raise SchemaMismatch unless the database is exactly at this program's schema."""
    missing = pending(database)
    if missing:
        raise SchemaMismatch(
            f"the database is at schema {missing[0].number - 1}, this program needs {migrations()[-1].number}",
            hint="'cleanroom up' migrates it",
        )


def pending(database: Database) -> list[Migration]:
    """The migrations that the database does not have yet, in order. Raises SchemaMismatch."""
    with database.transaction() as cursor:
        there = _recorded_numbers(cursor)
    return [migration for migration in migrations() if migration.number not in there]


def _locked_numbers(cursor: Cursor) -> set[int]:
    """The numbers of what was applied, with the migration lock held until the transaction's end."""
    _lock(cursor)
    return _recorded_numbers(cursor)


def _lock(cursor: Cursor) -> None:
    cursor.execute("SELECT pg_advisory_xact_lock(%(lock)s)", lock=_LOCK)


def _recorded_numbers(cursor: Cursor) -> set[int]:
    """The numbers of what was applied; none in an empty database. Raises SchemaMismatch."""
    if cursor.value("SELECT to_regclass('cleanroom.migration')") is None:
        return set()
    known = {migration.number: migration for migration in migrations()}
    rows = cursor.rows("SELECT number, name, checksum FROM cleanroom.migration ORDER BY number")
    for row in rows:
        migration = known.get(row["number"])
        if migration is None:
            raise SchemaMismatch(
                f"the database is newer than this program: it has migration {row['number']:04}_{row['name']}",
                hint="start the newer version of Cleanroom",
            )
        if migration.checksum != row["checksum"]:
            raise SchemaMismatch(f"migration {row['number']:04}_{row['name']} was changed after it was applied")
    return {int(row["number"]) for row in rows}

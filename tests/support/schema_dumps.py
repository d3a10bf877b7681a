"""Dumps of the record as it was at each version of the schema that landed, and how one is made.

    python tests/support/schema_dumps.py 20

makes `tests/database/dumps/0020.sql`: a database is migrated to that version, gets the data that is known by then (the
blocks of `data.sql`), and its rows are dumped. The schema itself is in the migrations, which never change: the rows of
`migration` have their checksums, so a dump that no longer fits its schema is refused.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from cleanroom_db import migrate, roles
from cleanroom_db.connection import Database

DUMPS = Path(__file__).resolve().parents[1] / "database/dumps"
_BLOCK = re.compile(r"^-- since (\d{4})$", re.MULTILINE)


def raise_to(owner: Database, number: int) -> None:
    """Give an empty database the schema of a version, with nothing in it."""
    with owner.transaction() as cursor:
        roles.create(cursor)
        for one in migrate.migrations():
            if one.number <= number:
                cursor.execute(one.statements)


def note(owner: Database, number: int) -> None:
    """Say which migrations that was."""
    with owner.transaction() as cursor:
        for one in migrate.migrations():
            if one.number <= number:
                cursor.execute(
                    "INSERT INTO cleanroom.migration VALUES (%(number)s, %(name)s, %(checksum)s, '2030-01-01Z')",
                    number=one.number,
                    name=one.name,
                    checksum=one.checksum,
                )


def data(number: int) -> str:
    """The statements that a version of the schema takes."""
    _, *parts = _BLOCK.split((DUMPS / "data.sql").read_text())
    return "".join(body for since, body in zip(parts[::2], parts[1::2], strict=True) if int(since) <= number)


def load(owner: Database, number: int) -> None:
    """Give an empty database what the dump of a version has: its schema, and its rows."""
    raise_to(owner, number)
    with owner.transaction() as cursor:
        # As pg_restore does it: rows are as they were, and nobody is told of them.
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute((DUMPS / f"{number:04}.sql").read_text())


def dump(owner: Database, number: int) -> str:
    """The rows of a database that has just a version's schema and data."""
    raise_to(owner, number)
    note(owner, number)
    with owner.transaction() as cursor:
        cursor.execute("SET LOCAL search_path = cleanroom, pg_catalog; SET LOCAL timezone = 'UTC'")
        cursor.execute(data(number))
    command = ["pg_dump", "--data-only", "--schema=cleanroom", "--column-inserts", "--no-owner", "--no-comments"]
    printed = subprocess.run([*command, owner.url], capture_output=True, text=True, timeout=120, check=True).stdout
    lines = [line for line in printed.splitlines() if line and not line.startswith(("--", "SET ", "\\"))]
    kept = [line for line in lines if "set_config" not in line]
    return f"-- Rows at schema {number}; made by tests/support/schema_dumps.py.\n" + "\n".join(kept) + "\n"


def main() -> None:
    """Make the dumps of the versions that are named, or of all."""
    from database_server import running_server

    from cleanroom_db.roles import Role

    wanted = [int(word) for word in sys.argv[1:]] or [one.number for one in migrate.migrations()]
    with running_server() as server:
        for number in wanted:
            server.execute(f"CREATE DATABASE dump_{number} TEMPLATE template1")
            owner = Database(server.url(Role.OWNER, f"dump_{number}"))
            (DUMPS / f"{number:04}.sql").write_text(dump(owner, number))
            owner.close()


if __name__ == "__main__":
    main()

"""One moment of the record, for a backup: what pg_dump writes and what is asked here are the same state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from cleanroom_db.connection import Cursor, Database
from cleanroom_db.sql import load

_SQL = load("snapshot")
_PAGE = 5000


@dataclass(frozen=True)
class Snapshot:
    """A moment of the record. `name` is PostgreSQL's for it; `generation` what consumers saw then (None: nothing).

    `schema` may be older than this program's: a backup is made before an upgrade.
    """

    name: str
    server: str
    schema: int
    generation: int | None
    _cursor: Cursor

    def logs(self) -> Iterator[str]:
        """The digests of all logs that steps have, in order, each once."""
        return self._pages("logs")

    def artifacts(self) -> Iterator[str]:
        """The same of all files that were built."""
        return self._pages("artifacts")

    def _pages(self, block: str) -> Iterator[str]:
        last = ""
        while rows := self._cursor.rows(_SQL[block], after=last, limit=_PAGE):
            yield from (row["digest"] for row in rows)
            last = rows[-1]["digest"]


@contextlib.contextmanager
def taken(database: Database) -> Iterator[Snapshot]:
    """Take a snapshot; it can be used, also by other connections, until the end of this context."""
    with database.transaction() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        name, server = cursor.value("SELECT pg_export_snapshot()"), cursor.value("SHOW server_version")
        yield Snapshot(name, server, cursor.value(_SQL["schema"]), cursor.value(_SQL["generation"]), cursor)

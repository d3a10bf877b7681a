"""The server's clock may be set back: what was to happen in a moment must not wait until it has caught up."""

from __future__ import annotations

from cleanroom_db.connection import Database
from cleanroom_db.sql import load

_SQL = load("clock")
# Transactions that began a while ago write times of then; a clock that is put right step by step moves by less.
_TOLERANCE = 60.0


def heed(database: Database, *, lease: float) -> int:
    """Bring times that lie further ahead than they were written to where they were meant: how long attempts and events
    wait, and until when work is leased (`lease` seconds at most). Returns how many rows that concerned.
    """
    with database.transaction() as cursor:
        return sum(
            cursor.execute(_SQL[name], lease=lease, tolerance=_TOLERANCE)
            for name in ("attempts", "leases", "ref_events")
        )

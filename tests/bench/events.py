"""Ten thousand recorded events: how fast the real master claims them, and what its memory does meanwhile."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from figures import Row
from installation import fresh, master, say
from tagged import Tagged

from cleanroom_base.errors import TimedOut
from cleanroom_db.cluster import open_database
from cleanroom_db.connection import Database
from cleanroom_db.roles import Role

EVENTS = 10_000
_TIMEOUT = 1800.0
_LOOK = 0.25
# Buildbot is asked for the first due attempts after the claims: that belongs to the memory afterwards.
_SETTLE = 10.0


def measure(runs: int | None = None) -> dict[str, Any]:
    """Record all events in one transaction while the master runs; no worker runs, so that nothing is built."""
    count = runs or EVENTS
    with fresh("events") as settings:
        database = open_database(settings, Role.OWNER)
        product = Tagged(settings, database)
        with master(settings) as process:
            # One claim first: everything is loaded then.
            _wait(database, process, product.record(1))
            time.sleep(_SETTLE)
            before = memory(process)
            begun = time.monotonic()
            recorded = product.record(count)
            inserted = time.monotonic() - begun
            say(f"events: {count} were recorded in {inserted:.1f} s")
            begun = time.monotonic()
            most = _wait(database, process, recorded)
            seconds = time.monotonic() - begun
            time.sleep(_SETTLE)
            after = memory(process)
        database.close()
    row = {
        "events": count,
        "recorded_per_second": round(count / inserted),
        "claimed_per_second": round(count / seconds, 1),
        "seconds": round(seconds, 1),
        "memory_before_mib": before,
        "memory_most_mib": most,
        "memory_after_mib": after,
    }
    return {"events": [row]}


def tables(measured: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """What of it people want to see."""
    return [("events that wait, claimed by the master; its resident memory in MiB", measured["events"])]


def memory(process: int) -> float:
    """The resident memory of a process in MiB. Source: proc(5), VmRSS."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return round(int(found[1]) / 1024, 1) if found else 0.0


def _wait(database: Database, process: int, events: list[int]) -> float:
    """Wait until all are claimed; gives the most memory that the master had meanwhile."""
    most = 0.0
    deadline = time.monotonic() + _TIMEOUT
    while time.monotonic() < deadline:
        most = max(most, memory(process))
        with database.transaction() as cursor:
            left = cursor.value(
                "SELECT count(*) FROM cleanroom.ref_event"
                " WHERE state <> 'claimed' AND id BETWEEN %(first)s AND %(last)s",
                first=events[0],
                last=events[-1],
            )
        if left == 0:
            return most
        time.sleep(_LOOK)
    raise TimedOut(f"{left} of {len(events)} events were not claimed within {_TIMEOUT:.0f} s")

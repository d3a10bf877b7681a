"""From the INSERT of an event until it is claimed by the real master: woken by NOTIFY, and by polling alone."""

from __future__ import annotations

import random
import time
from typing import Any

from figures import Row, summary
from installation import fresh, master, say
from tagged import Tagged

from cleanroom_base.errors import TimedOut
from cleanroom_db.cluster import open_database
from cleanroom_db.connection import Database
from cleanroom_db.roles import Role

RUNS = 25
_POLL = 4.0
_TIMEOUT = 60.0
_LOOK = 0.003


def measure(runs: int | None = None) -> dict[str, Any]:
    """Record events one by one; no worker runs, so that nothing is built meanwhile."""
    with fresh("claims", CLEANROOM_MASTER_POLL=str(_POLL)) as settings:
        database = open_database(settings, Role.OWNER)
        product = Tagged(settings, database)
        with master(settings):
            _claim(database, product)
            say("claims: woken by NOTIFY")
            woken = [_claim(database, product) for _ in range(runs or RUNS)]
            say("claims: by polling alone")
            with database.transaction() as cursor:
                cursor.execute("ALTER TABLE cleanroom.ref_event DISABLE TRIGGER inserted")
            polled = [_claim(database, product) for _ in range(runs or RUNS)]
        database.close()
    rows = [
        {"woken_by": "NOTIFY", **summary(woken), "bound": 1.0},
        {"woken_by": f"polling every {_POLL:g} s", **summary(polled), "bound": _POLL},
    ]
    return {"claims": rows, "notify_seconds": woken, "poll_seconds": polled}


def tables(measured: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """What of it people want to see."""
    return [("from INSERT to claimed, in seconds", measured["claims"])]


def _claim(database: Database, product: Tagged) -> float:
    """Seconds from the INSERT until others see the event claimed."""
    # At any point of the master's poll interval.
    time.sleep(0.5 + random.random() * _POLL / 2)
    begun = time.monotonic()
    (event,) = product.record(1)
    while time.monotonic() < begun + _TIMEOUT:
        with database.transaction() as cursor:
            state = cursor.value("SELECT state FROM cleanroom.ref_event WHERE id = %(id)s", id=event)
        if state == "claimed":
            return time.monotonic() - begun
        time.sleep(_LOOK)
    raise TimedOut(f"event {event} was not claimed within {_TIMEOUT:.0f} s: it is {state}")

"""From a tag to its publication: the total, the seconds in guest commands, and our overhead, part by part."""

from __future__ import annotations

import statistics
import time
from typing import Any

from account import account, commands_of_any_build, critical, phase_rows
from figures import Row
from installation import everything, say

from cleanroom_base.errors import InfrastructureError, InputError, TimedOut
from cleanroom_base.settings import Settings
from cleanroom_db.cluster import open_database
from cleanroom_db.connection import Database
from cleanroom_db.roles import Role
from cleanroom_db.view import release_view
from cleanroom_master.demo import Demo, DemoRepository

RUNS = 3
BUDGET = 5.0
_TIMEOUT = 1800.0
_LOOK = 0.5


def measure(runs: int | None = None) -> dict[str, Any]:
    """One release at a time of both products of the demonstration, after one of each that is not counted."""
    released = releases(runs or RUNS)
    views = [view for view, _ in released]
    return {
        "budget_seconds": BUDGET,
        "releases": [_row(view, push) for view, push in released],
        "phases": [row for view in views[-2:] for row in phase_rows(view)],
        "middle": [_middle(views, name) for name in sorted({view["product"] for view in views}, reverse=True)],
        "views": views,
    }


def releases(runs: int, *names: str) -> list[tuple[Any, float]]:
    """So many releases of each of the demonstration's products (or those named), and what pushing them took."""
    released: list[tuple[Any, float]] = []
    with everything() as settings:
        database = open_database(settings, Role.OWNER)
        demo = Demo(settings, timeout=_TIMEOUT, say=say)
        makers = {"tally": demo.tally, "hello": demo.hello}
        repositories = [makers[name]() for name in names or makers]
        for repository in repositories:
            demo.watch(database, repository)
            _release(settings, database, repository)
        for _ in range(runs):
            released += [_release(settings, database, repository) for repository in repositories]
    return released


def tables(measured: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """What of it people want to see."""
    budget = measured["budget_seconds"]
    return [
        (f"tag to published, in seconds; the budget for `overhead` is {budget:g}", measured["releases"]),
        ("the same, medians", measured["middle"]),
        ("the phases on the critical path of the last releases", measured["phases"]),
    ]


def _release(settings: Settings, database: Database, repository: DemoRepository) -> tuple[Any, float]:
    """Push a tag and wait for its publication; gives the release and the seconds that pushing took."""
    begun = time.monotonic()
    tagged = repository.release()
    push = time.monotonic() - begun
    deadline = begun + _TIMEOUT
    while time.monotonic() < deadline:
        try:
            view = release_view(database, tagged.product, tagged.tag)
        except InputError:
            view = None
        if view is not None and view["published"]:
            say(f"{tagged.product} {tagged.tag} is published after {time.monotonic() - begun:.1f} s")
            return view, push
        if view is not None and view["state"] in ("failed", "held", "cancelled"):
            raise InfrastructureError(f"{tagged.product} {tagged.tag} is {view['state']}: {view['why']}")
        time.sleep(_LOOK)
    raise TimedOut(f"{tagged.product} {tagged.tag} is not published in its time, see {settings.state / 'run'}")


def _row(view: Any, push: float) -> Row:
    spent = account(view)
    return {
        "release": f"{view['product']} {view['ref']}",
        "critical": critical(view)["target"],
        **spent.row(),
        "no_command": round(spent.total - commands_of_any_build(view), 2),
        "push": round(push, 2),
    }


def _middle(views: list[Any], product: str) -> Row:
    rows = [account(view).row() for view in views if view["product"] == product]
    return {
        "product": product,
        "n": len(rows),
        **{key: round(statistics.median(float(str(row[key])) for row in rows), 2) for key in rows[0]},
    }

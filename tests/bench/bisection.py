"""A planted regression in one of 64 commits: probes and seconds until it is found, one at a time and side by side."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from figures import Row
from installation import everything, say

from cleanroom_base import run
from cleanroom_base.errors import InfrastructureError, TimedOut
from cleanroom_base.settings import Settings
from cleanroom_db import bisections, products
from cleanroom_db.cluster import open_database
from cleanroom_db.connection import Database
from cleanroom_db.roles import Role
from cleanroom_db.states import BisectionState
from cleanroom_master.bisection.start import Wish, start
from cleanroom_master.refs import repositories

COMMITS = 64
_CULPRIT = 41
_NAME = "bisected"
_TEST = "the answer"
_TIMEOUT = 1800.0
_LOOK = 0.2
_RECIPE = 'builder = "script"\ncommands = ["sh build.sh"]\nartifacts = ["value"]\n'
_BUILD = f"grep -q 42 value && echo 'PASS: {_TEST}' || {{ echo 'FAIL: {_TEST}'; exit 1; }}\n"


def measure(runs: int | None = None) -> dict[str, Any]:
    """The same search one probe at a time, then with as many as the host runs."""
    del runs
    with everything() as settings:
        database = open_database(settings, Role.OWNER)
        tree = _repository(settings.state / "bisected")
        if _NAME not in {product.name for product in products.list_watched(database)}:
            repositories.add(settings, database, _NAME, tree.as_uri())
        # The first one finds no guest ready and no layer made.
        _search(settings, database, _CULPRIT - 1, _CULPRIT, 1)
        return {
            "searches": [
                _search(settings, database, 1, COMMITS, at_once) for at_once in (1, settings.whole("worker.parallel"))
            ]
        }


def tables(measured: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """What of it people want to see."""
    return [(f"a planted regression among {COMMITS} commits; probes with both ends", measured["searches"])]


def _search(settings: Settings, database: Database, good: int, bad: int, at_once: int) -> Row:
    """One search to its end. `sequential_bound`: the probes that one after the other needs at most, with both ends."""
    wish = Wish(_NAME, f"commit-{good}", f"commit-{bad}", test=_TEST, phase="build", parallel=at_once)
    begun = time.monotonic()
    bisection = start(settings, database, wish)
    while (found := bisections.get(database, bisection)).state is BisectionState.RUNNING:
        if time.monotonic() - begun > _TIMEOUT:
            raise TimedOut(f"the bisection is not at its end in its time: {found.why}")
        time.sleep(_LOOK)
    seconds = time.monotonic() - begun
    if found.state is not BisectionState.FOUND:
        raise InfrastructureError(f"the bisection is {found.state}: {found.why}")
    probes = bisections.probes(database, bisection)
    lengths = [(one.finished_at - one.created_at).total_seconds() for one in probes if one.finished_at is not None]
    say(f"found in {seconds:.1f} s by {len(probes)} probes, {at_once} at once")
    return {
        "at_once": at_once,
        "probes": len(probes),
        "sequential_bound": 2 + math.ceil(math.log2(bad - good)),
        "one_by_one": bad - good + 1,
        "seconds": round(seconds, 1),
        "seconds_a_probe": round(statistics.median(lengths), 2),
    }


def _repository(place: Path) -> Path:
    """A line of commits with a tag each, made by one `git fast-import`."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    run.run(["git", "-C", place, "init", "--quiet", "--initial-branch=main"], timeout=60)
    lines = "".join(_commit(number) for number in range(1, COMMITS + 1))
    run.run(["git", "-C", place, "fast-import", "--quiet"], timeout=60, stdin=lines.encode())
    return place


def _commit(number: int) -> str:
    value = f"{41 if number >= _CULPRIT else 42} in {number}\n"
    files = {"cleanroom.toml": _RECIPE, "build.sh": _BUILD, "value": value}
    content = "".join(f"M 100644 inline {name}\ndata {len(text)}\n{text}\n" for name, text in files.items())
    message = f"Change {number}"
    before = f"from :{number - 1}\n" if number > 1 else ""
    return (
        f"commit refs/heads/main\nmark :{number}\ncommitter Anna <anna@example.org> {1_700_000_000 + number} +0000\n"
        f"data {len(message)}\n{message}\n{before}{content}\nreset refs/tags/commit-{number}\nfrom :{number}\n\n"
    )

"""Two releases with 100,000 test cases each, compared, and one case's history, in a database with many earlier runs."""

from __future__ import annotations

import time
from typing import Any

from figures import Row, summary
from installation import fresh, say

from cleanroom_db import comparisons, histories
from cleanroom_db.cluster import open_database
from cleanroom_db.connection import Database
from cleanroom_db.roles import Role

CASES = 100_000
RUNS = 10
_EARLIER = 12
_BOUND = 1.0
_TARGET = "debian-12/deb"
_CASE = "suite-1/module-1/test case number 1"

# Release `number` with one build of one phase. In the last one, one case of a hundred fails, another is new, another
# gone, and another takes longer, as after a bad day.
_RELEASE = """
WITH event AS (
    INSERT INTO cleanroom.ref_event (product, ref, commit, state)
    VALUES ('bench', %(ref)s, %(commit)s, 'claimed') RETURNING id
), release AS (
    INSERT INTO cleanroom.release
        (product, ref, commit, kind, state, ref_event_id, recipe, recipe_digest, channel, requested_by, finished_at)
    SELECT 'bench', %(ref)s, %(commit)s, 'tag', 'failed', id, '{}', '', 'testing', 'bench', now() FROM event
    RETURNING id
), build AS (
    INSERT INTO cleanroom.build (release_id, target, phases) SELECT id, %(target)s, '{regress}' FROM release
    RETURNING id
), attempt AS (
    INSERT INTO cleanroom.attempt (build_id, number, series_start, outcome, finished_at)
    SELECT id, 1, 1, 'passed', now() FROM build RETURNING id
)
INSERT INTO cleanroom.phase (attempt_id, position, name, outcome, finished_at)
SELECT id, 0, 'regress', 'passed', now() FROM attempt RETURNING id
"""
_TESTS = """
INSERT INTO cleanroom.test_case (phase_id, step, name, outcome, seconds)
SELECT %(phase)s, 'tests', format('suite-%%s/module-%%s/test case number %%s', n %% 50, n %% 1000, n),
       (CASE WHEN %(last)s AND n %% 100 = 1 THEN 'failed' ELSE 'passed' END)::cleanroom.outcome,
       CASE WHEN n %% 100 = 4 THEN 0.6 ELSE 0.001 END * (1 + random() / 10)
       + CASE WHEN %(last)s AND n %% 200 = 4 THEN 2 ELSE 0 END
  FROM generate_series(1, %(cases)s) AS n
 WHERE NOT (%(last)s AND n %% 100 = 2) AND (%(last)s OR n %% 100 <> 3)
"""


def measure(runs: int | None = None) -> dict[str, Any]:
    """Fill a database of its own and compare, as `release compare` does."""
    with fresh("comparison") as settings:
        database = open_database(settings, Role.OWNER)
        say(f"comparison: making {_EARLIER + 1} releases with {CASES} cases")
        _fill(database)
        first, last = f"v{_EARLIER - 1}", f"v{_EARLIER}"
        times = {
            "two releases compared": _timed(runs, lambda: comparisons.compare(database, "bench", last, first)),
            "the history of one case": _timed(runs, lambda: histories.history(database, "bench", _CASE)),
        }
        found = comparisons.compare(database, "bench", last, first)
        database.close()
    return {
        "comparison": [{"what": what, **summary(taken), "bound": _BOUND} for what, taken in times.items()],
        "found": [{str(change): found.count(change) for change in comparisons.Change}],
        "cases": CASES,
    }


def tables(measured: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """What of it people want to see."""
    return [
        (f"two releases of {measured['cases']} test cases, {_EARLIER} runs before; in seconds", measured["comparison"]),
        ("what the comparison found", measured["found"]),
    ]


def _timed(runs: int | None, work: Any) -> list[float]:
    taken = []
    for _ in range(runs or RUNS):
        begun = time.monotonic()
        work()
        taken.append(time.monotonic() - begun)
    return taken


def _fill(database: Database) -> None:
    with database.transaction() as cursor:
        cursor.execute("INSERT INTO cleanroom.product (name, url) VALUES ('bench', 'https://example.org/bench.git')")
    for number in range(_EARLIER + 1):
        with database.transaction() as cursor:
            phase = cursor.value(_RELEASE, ref=f"v{number}", commit=f"{number:040x}", target=_TARGET)
            cursor.execute(_TESTS, phase=phase, last=number == _EARLIER, cases=CASES)
    with database.transaction() as cursor:
        cursor.execute("ANALYZE")

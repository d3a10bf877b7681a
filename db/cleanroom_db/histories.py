"""How one test case went in the releases of its product: how often it passes, and since when it fails."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cleanroom_base.errors import InputError
from cleanroom_db import products
from cleanroom_db.connection import Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_recipes.model import Outcome

_SQL = load("histories")

# The releases that are looked at, the newest.
RELEASES = 1000
_FAILING = (Outcome.FAILED, Outcome.REGRESSED)
_RAN = (*_FAILING, Outcome.FLAKY, Outcome.PASSED)


@dataclass(frozen=True)
class Run(Entity):
    """A case in one release. `seconds` None: not said; `line`: its place in the step's log, None: it has none."""

    ref: str
    commit: str
    version: str | None
    channel: str
    finished_at: datetime
    target: str
    phase: str
    step: str
    outcome: Outcome
    seconds: float | None
    message: str
    line: int | None
    runs: int | None = None  # these two: None where it was not repeated
    failures: int | None = None


@dataclass(frozen=True, slots=True)
class History:
    """A case on one target, in one phase and step; its runs are newest first."""

    target: str
    phase: str
    step: str
    runs: tuple[Run, ...]

    @property
    def pass_rate(self) -> float | None:
        """The share of runs that passed, of those that were not skipped; None where there are none."""
        ran = [run for run in self.runs if run.outcome in _RAN]
        return sum(run.outcome is Outcome.PASSED for run in ran) / len(ran) if ran else None

    @property
    def flaky_rate(self) -> float | None:
        """The share of its runs in which it was flaky; None as for `pass_rate`."""
        ran = [run for run in self.runs if run.outcome in _RAN]
        return sum(run.outcome is Outcome.FLAKY for run in ran) / len(ran) if ran else None

    @property
    def failing_since(self) -> Run | None:
        """The first of the latest runs that all failed; None where the last one did not."""
        ran = (run for run in self.runs if run.outcome in _RAN)
        failing = list(itertools.takewhile(lambda run: run.outcome in _FAILING, ran))
        return failing[-1] if failing else None


def history(
    database: Database, product: str, name: str, *, channel: str | None = None, releases: int = RELEASES
) -> list[History]:
    """How a case went in the newest `releases`, by target.

    Raises InputError for a product or case that is not known.
    """
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["runs"], product=plain(product), name=plain(name), channel=channel, releases=releases)
    if not rows:
        products.get(database, product)
        raise InputError(
            f"no release of {product} has a test {name[:200]!r}",
            hint=f"'cleanroom release compare {product} REF --all' lists the tests of a release",
        )
    return [
        History(*place, _one_a_release([Run.from_row(row) for row in group]))
        for place, group in itertools.groupby(rows, lambda row: (row["target"], row["phase"], row["step"]))
    ]


def _one_a_release(runs: Sequence[Run]) -> tuple[Run, ...]:
    """Of several cases of one name the worst counts, which comes first."""
    return tuple(next(group) for _, group in itertools.groupby(runs, lambda run: run.ref))

"""What a phase costs beyond what its commands take: reset, inputs, artifacts, the way to the worker and back."""

from __future__ import annotations

from typing import Any

import way
from account import phase_overheads
from figures import Row, summary

RUNS = 2
BUDGET = 1.0


def measure(runs: int | None = None) -> dict[str, Any]:
    """Releases of tally, each an upgrade of the one before, as deb and as rpm side by side."""
    views = [view for view, _ in way.releases(runs or RUNS, "tally")]
    return {
        "budget_seconds": BUDGET,
        "phases": [{"phase": name, **summary(values, 2)} for name, values in phase_overheads(views).items()],
    }


def tables(measured: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """What of it people want to see."""
    budget = measured["budget_seconds"]
    return [(f"seconds that a phase takes beyond its commands; the budget is {budget:g}", measured["phases"])]

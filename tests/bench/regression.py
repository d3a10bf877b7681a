"""Everything about regressions that is measured: each thing in a module of its own."""

from __future__ import annotations

from typing import Any

import bisection
import combination
import comparison
import ingest
import phase_cost
from figures import Row

_MEASURED = (comparison, ingest, bisection, combination, phase_cost)


def measure(runs: int | None = None) -> dict[str, Any]:
    """One after the other."""
    return {module.__name__: module.measure(runs) for module in _MEASURED}


def tables(measured: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """What of it people want to see."""
    return [table for module in _MEASURED for table in module.tables(measured[module.__name__])]

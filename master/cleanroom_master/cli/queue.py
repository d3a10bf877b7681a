"""`cleanroom queue`: what is under way, and what waits for what."""

from __future__ import annotations

import argparse
from typing import Any

from cleanroom_db import dependencies, disk, estimates
from cleanroom_db.dependencies import Queued
from cleanroom_master.cli.frame import Commands, Context, table
from cleanroom_master.cli.products import in_a_circle

_COLUMNS = ["position", "what", "product", "ref", "channel", "state", "waits_for", "left_seconds"]
# A line of a terminal has room for so many names.
_SHOWN = 3


def register(commands: Commands) -> None:
    """Declare the command."""
    commands.verb(
        "queue",
        queue,
        "show what is under way in the order in which it is worked on, and what waits for what",
        "cleanroom queue --format json",
    )


def queue(context: Context, _: argparse.Namespace) -> None:
    """Show all releases and trials that are not at their end, and the products that depend on each other."""
    found, graph = dependencies.queue(context.database)
    left = estimates.left(context.database)
    rows = [_view(position, one, left.get((one.kind, one.id))) for position, one in enumerate(found, 1)]
    told = [
        {**row, "what": one.purpose or one.kind, "waits_for": _told(one)} for row, one in zip(rows, found, strict=True)
    ]
    full = disk.low(context.database)
    lines = [table(told, _COLUMNS) if told else "nothing is under way", *map(in_a_circle, graph.cycles)]
    lines += [f"disk: {full.words}"] if full else []
    data = {"queue": rows, "cycles": graph.cycles, "disk": full.words if full else None}
    context.emit(data, "\n".join(lines))


def _view(position: int, one: Queued, left: float | None) -> dict[str, Any]:
    return {
        "position": position,
        **{name: getattr(one, name) for name in ("kind", "purpose", "product", "ref", "channel", "state", "why")},
        "created_at": one.created_at,
        "waits_for": one.waits_for,
        "subject": one.subject,
        "left_seconds": None if left is None else round(left, 1),
    }


def _told(one: Queued) -> str | None:
    if not one.waits_for:
        return None
    more = len(one.waits_for) - _SHOWN
    return ", ".join(one.waits_for[:_SHOWN]) + (f" and {more} more" if more > 0 else "")

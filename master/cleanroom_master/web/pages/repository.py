"""What is published, since when, and what changed?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from cleanroom_db import generations, published
from cleanroom_db.published import GENERATIONS
from cleanroom_master.web.site import Record
from cleanroom_master.web.templating import Render

router = APIRouter(include_in_schema=False)

_CHANGES = 200
Number = Annotated[int, Query(ge=0, lt=2**63)]


@router.get("/repository")
def repository(record: Record, render: Render, before: Annotated[int | None, Query(ge=0, lt=2**63)] = None) -> Response:
    """Channels and generations."""
    steps = published.generations(record, before)
    return render(
        "repository.html",
        channels=published.channels(record),
        generations=steps[:GENERATIONS],
        before=steps[GENERATIONS - 1].number if len(steps) > GENERATIONS else None,
        newest=before is None,
    )


@router.get("/repository/diff")
def diff(record: Record, render: Render, first: Number, second: Number) -> Response:
    """What one generation has and another has not."""
    for number in (first, second):
        generations.get(record, number)
    return render(
        "diff.html",
        first=first,
        second=second,
        change=generations.difference(record, first, second),
        most=_CHANGES,
    )

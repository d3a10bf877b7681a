"""Does it become slower, or worse? Times and tests of the latest releases."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from cleanroom_db import products as record_of
from cleanroom_db import trends as record_of_trends
from cleanroom_master.web import plots
from cleanroom_master.web.site import Everything, Record
from cleanroom_master.web.templating import Render

router = APIRouter(include_in_schema=False)

_RESETS = 150


@router.get("/trends")
def trends(
    record: Record, everything: Everything, render: Render, product: Annotated[str, Query(max_length=100)] = ""
) -> Response:
    """Plots with their numbers."""
    name = record_of.get(record, product.strip()).name if product.strip() else None
    ended = record_of_trends.releases(record, name)
    return render(
        "trends.html",
        product=name,
        ended=ended,
        build=plots.dots([one.build_seconds for one in ended]),
        published=plots.dots([one.published_seconds for one in ended]),
        passing=plots.dots([one.pass_rate for one in ended], most=1.0),
        reset=plots.dots([one.seconds for one in record_of_trends.resets(everything, limit=_RESETS)]),
        height=plots.HEIGHT,
        width=plots.WIDTH,
    )

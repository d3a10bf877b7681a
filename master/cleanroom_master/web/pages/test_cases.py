"""How did this test go? Over releases and targets; how often it passes, and since when it fails."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from cleanroom_db import histories, trends
from cleanroom_db import products as record_of
from cleanroom_master.web.site import Record
from cleanroom_master.web.templating import Render

router = APIRouter(include_in_schema=False)

# Releases of a strip.
_STRIP = 60


@router.get("/tests/{product}")
def tests(product: str, record: Record, render: Render, name: Annotated[str, Query(max_length=2000)] = "") -> Response:
    """The history of one case, or the cases of a product that did not always pass lately."""
    if name:
        found = histories.history(record, product, name, releases=_STRIP)
        return render("test.html", product=product, name=name, histories=found, strip=_STRIP)
    known = record_of.get(record, product)
    return render("tests.html", product=known.name, cases=trends.restless(record, known.name))

"""Where is this release, why is it there, and what happens next?"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from cleanroom_db import way
from cleanroom_db.view import release_view
from cleanroom_master.web import lanes
from cleanroom_master.web.site import Record
from cleanroom_master.web.templating import Render

router = APIRouter(include_in_schema=False)


@router.get("/release/{product}/{ref:path}")
def release(product: str, ref: str, record: Record, render: Render) -> Response:
    """Everything about one release."""
    view = release_view(record, product, ref)
    stations = way.stations(view)
    return render("release.html", release=view, stations=stations, lanes=lanes.draw(stations))

"""Where is this release, why is it there, and what happens next?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from cleanroom_db import way
from cleanroom_db.view import release_view
from cleanroom_db.way import Station
from cleanroom_master.web import lanes
from cleanroom_master.web.site import Record
from cleanroom_master.web.templating import Render, look

router = APIRouter(include_in_schema=False)

# Targets that are shown with all about them, and others that are named.
SHOWN = 8
_NAMED = 300
_GATES = 100
_ARTIFACTS = 200
# What readers come for stands first.
_ORDER = ("bad", "mixed", "hold", "busy", "calm", "off", "good")


@router.get("/release/{product}/{ref:path}")
def release(
    product: str, ref: str, record: Record, render: Render, target: Annotated[str, Query(max_length=300)] = ""
) -> Response:
    """Everything about one release; of one with many targets about some, or about the one that is asked for."""
    view = release_view(record, product, ref)
    stations = way.stations(view)
    shown, others = _chosen(view["builds"], target)
    of_target: dict[str, list[Station]] = {}
    for one in stations:
        of_target.setdefault(one.target, []).append(one)
    whole = of_target.pop("", [])
    return render(
        "release.html",
        release=view,
        builds=shown,
        others=others[:_NAMED],
        left_out=len(others),
        gates=sorted(view["gates"], key=lambda gate: _ORDER.index(look(gate["state"] or "waits")))[:_GATES],
        most_artifacts=_ARTIFACTS,
        before=[one for one in whole if one.name in way.BEFORE],
        after=[one for one in whole if one.name not in way.BEFORE],
        of_target=of_target,
        lanes=lanes.draw([one for build in shown for one in of_target.get(build["target"], ())]),
    )


def _chosen(builds: Sequence[dict[str, Any]], wanted: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The builds that are shown, and the others."""
    if wanted and any(build["target"] == wanted for build in builds):
        shown = [build for build in builds if build["target"] == wanted]
    elif len(builds) <= SHOWN:
        return list(builds), []
    else:
        shown = sorted(builds, key=lambda build: _ORDER.index(look(build["outcome"] or "running")))[:SHOWN]
    names = {build["target"] for build in shown}
    return shown, [build for build in builds if build["target"] not in names]

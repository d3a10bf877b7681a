"""Where does it run, and how quickly is a clean guest there?"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from cleanroom_db import disk, overview, services, trends
from cleanroom_master.web import plots
from cleanroom_master.web.site import Everything, Record
from cleanroom_master.web.templating import Render

router = APIRouter(include_in_schema=False)


@router.get("/hosts")
def hosts(record: Record, everything: Everything, render: Render) -> Response:
    """Hosts with what runs on them, services, and how long resets took."""
    kinds: dict[tuple[str, str], list[float]] = {}
    for reset in trends.resets(everything):
        kinds.setdefault((reset.isolation, reset.method), []).append(reset.seconds)
    return render(
        "hosts.html",
        hosts=services.hosts(everything),
        disks=disk.all_of(everything),
        services=services.list_all(everything),
        running=overview.running(record),
        resets={kind: plots.distribution(seconds) for kind, seconds in sorted(kinds.items())},
        images=trends.images(everything),
        targets=trends.targets(everything),
        height=plots.HEIGHT,
        width=plots.WIDTH,
    )

"""What is under way, what waits for what, for how long already, and for how long yet?"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from cleanroom_db import dependencies, disk, estimates, overview
from cleanroom_master.web.site import Everything, Record
from cleanroom_master.web.templating import Render

router = APIRouter(include_in_schema=False)

_LISTED = 200


@router.get("/queue")
def queue(record: Record, everything: Everything, render: Render) -> Response:
    """All that is not at its end, in the order in which it is worked on."""
    found, graph = dependencies.queue(record)
    return render(
        "queue.html",
        queued=found[:_LISTED],
        count=len(found),
        left=estimates.left(everything),
        running=overview.running(record),
        cycles=graph.cycles,
        full=disk.low(everything),
    )

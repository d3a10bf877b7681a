"""Where are the releases? The newest by target, and what is worked on now."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import Response

from cleanroom_base.errors import Problem
from cleanroom_db import overview
from cleanroom_db.overview import Filter
from cleanroom_db.states import ReleaseState
from cleanroom_master.web.errors import BadRequest
from cleanroom_master.web.site import Record
from cleanroom_master.web.templating import Render

router = APIRouter(include_in_schema=False)

Text = Annotated[str, Query(max_length=100)]


@router.get("/")
def releases(
    record: Record,
    render: Render,
    product: Text = "",
    channel: Text = "",
    state: Text = "",
    before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
) -> Response:
    """The matrix of releases by target."""
    wanted = Filter(product=product.strip() or None, channel=channel or None, state=_state(state), before=before)
    matrix = overview.matrix(record, wanted)
    older = {"product": product, "channel": channel, "state": state, "before": matrix.next}
    return render(
        "releases.html",
        matrix=matrix,
        wanted=wanted,
        running=[] if before else [one for one in overview.running(record) if (wanted.product or "") in one.product],
        present=overview.present(record),
        channels=overview.channels(record),
        states=list(ReleaseState),
        older=urlencode({name: value for name, value in older.items() if value}) if matrix.next else None,
    )


def _state(word: str) -> ReleaseState | None:
    if not word:
        return None
    try:
        return ReleaseState(word)
    except ValueError:
        words = ", ".join(ReleaseState)
        raise BadRequest("there is no such state", problems=[Problem("state", f"must be one of {words}")]) from None

"""What is new? Server-sent events for open pages."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from cleanroom_db import releases
from cleanroom_master.web.live import News, stream
from cleanroom_master.web.site import Part

router = APIRouter(include_in_schema=False)


@router.get("/changes")
async def changes(
    request: Request,
    part: Part,
    release: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    seen: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    last_event_id: Annotated[int | None, Header()] = None,
) -> Response:
    """Tells whenever a page about one release, or about all that may be read, is not up to date any more."""
    if part is not None and release is not None:
        await to_thread.run_sync(releases.get, part, release)
    news: News = request.app.state.news
    return stream(news.follow(release, seen if last_event_id is None else last_event_id, part))

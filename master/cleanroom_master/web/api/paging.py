"""Long lists in parts: each names what the next begins after, so that nothing shifts. Source: RFC 8288, Link."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import Query, Request
from fastapi.responses import Response

T = TypeVar("T")

LARGEST = 2**63 - 1
Limit = Annotated[int, Query(ge=1, le=200, description="at most so many of the list")]
Before = Annotated[int | None, Query(ge=1, le=LARGEST, description="those before this one, as the Link header says")]
After = Annotated[int, Query(ge=0, le=LARGEST, description="those after this one, as the Link header says")]
LINK: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "Link": {"description": 'where the list goes on (rel="next")', "schema": {"type": "string"}},
            "ETag": {"description": "for If-None-Match", "schema": {"type": "string"}},
        }
    }
}


def part(request: Request, answer: Response, found: Sequence[T], limit: int, name: str, key: str) -> list[T]:
    """The first `limit` of what was found, and the address of the rest, if there is more, in the Link header.

    `key` is the attribute of the last one that is told in the parameter `name`.
    """
    shown = list(found[:limit])
    if len(found) > limit:
        asked = [(one, value) for one, value in request.query_params.multi_items() if one != name]
        query = urlencode([*asked, (name, str(getattr(shown[-1], key)))])
        answer.headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
    return shown

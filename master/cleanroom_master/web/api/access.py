"""Who may read. Until a site says otherwise, everybody may.

`application.state.permit` is asked with each request, where there is one; it raises `Refused` with 401 or 403.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request

Permit = Callable[[Request], Awaitable[None]]


async def may_read(request: Request) -> None:
    """Raise Refused unless who asks may read."""
    permit: Permit | None = request.app.state.permit
    if permit is not None:
        await permit(request)

"""Answers that are not sent again to who has them already. Source: RFC 9110, 13.1.2, If-None-Match."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

_LONGEST = 8192


def unchanged(request: Request, tag: str) -> bool:
    """Whether who asks has what this entity tag stands for."""
    asked = request.headers.get("if-none-match", "")[:_LONGEST]
    have = [one.strip().removeprefix("W/") for one in asked.split(",")]
    return "*" in have or tag in have


def conditional(request: Request, answer: Response) -> Response:
    """An answer with its entity tag; without its content for who has it already."""
    tag = answer.headers.setdefault("ETag", f'"{hashlib.sha256(bytes(answer.body)).hexdigest()[:32]}"')
    answer.headers.setdefault("Cache-Control", "no-cache")
    if not unchanged(request, tag):
        return answer
    kept = {name: value for name in ("ETag", "Cache-Control", "Link", "Vary") if (value := answer.headers.get(name))}
    return Response(status_code=304, headers=kept)


class Conditional(APIRoute):
    """A route whose answers carry an entity tag."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with what follows it."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            answer = await handle(request)
            # What is sent piece by piece has no content yet.
            if request.method == "GET" and answer.status_code == 200 and hasattr(answer, "body"):
                return conditional(request, answer)
            return answer

        return handler

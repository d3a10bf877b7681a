"""One page for all who ask for it at the same time.

After a change every open page asks for itself again, often hundreds for the same one, and each says which one it has.
It is made once; who asks meanwhile waits for it, and it serves for a moment, until there is other news. Whoever says
who he is, by a cookie or a token, gets a page of his own.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cleanroom_master.web.live import News

# A page serves for so long, in seconds: not all that is shown is told as news.
_MOMENT = 1.0
# So many pages are kept, and none that is larger, in bytes.
_KEPT = 64
_LARGEST = 1 << 20

# The news, the page, and what of it the reader has already.
_Key = tuple[int, str, bytes, bytes]


@dataclass(frozen=True)
class _Page:
    """A whole answer, and when it was made."""

    start: Message
    body: bytes
    at: float


class Shared:
    """Answers with a page that was made for somebody else, where that is the same."""

    def __init__(self, app: ASGIApp, news: News) -> None:
        self._app = app
        self._news = news
        self._pages: OrderedDict[_Key, _Page] = OrderedDict()
        self._made: dict[_Key, asyncio.Event] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["method"] != "GET" or _personal(scope):
            await self._app(scope, receive, send)
            return
        has = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
        key = (self._news.number(), scope["path"], scope["query_string"], has)
        if (made := self._made.get(key)) is not None:
            await made.wait()
        page = self._pages.get(key)
        if page is not None and time.monotonic() - page.at < _MOMENT:
            await _answer(page, send)
        elif key in self._made:
            await self._app(scope, receive, send)
        else:
            await self._make(key, scope, receive, send)

    async def _make(self, key: _Key, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and keep the answer if it is a page; nobody waits for anything else."""
        made = self._made[key] = asyncio.Event()
        began = time.monotonic()
        start: Message | None = None
        pieces: list[bytes] = []

        async def keep(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                if _for_all(scope["path"], message["status"], Headers(raw=message["headers"])):
                    start = {**message, "headers": list(message["headers"])}
                else:
                    made.set()
            elif start is not None:
                pieces.append(message.get("body", b""))
                if not message.get("more_body") and sum(map(len, pieces)) <= _LARGEST:
                    self._pages[key] = _Page(start, b"".join(pieces), began)
                    made.set()
            await send(message)

        try:
            await self._app(scope, receive, keep)
        finally:
            made.set()
            del self._made[key]
            while len(self._pages) > _KEPT:
                self._pages.popitem(last=False)


def _personal(scope: Scope) -> bool:
    """Whether the answer may be another one for somebody else."""
    return any(name in (b"cookie", b"authorization") for name, _ in scope["headers"])


def _for_all(path: str, status: int, headers: Headers) -> bool:
    """Whether others may have an answer too: a page, or that it is as it was, unless it is said to be one reader's."""
    if "set-cookie" in headers or "no-store" in headers.get("cache-control", ""):
        return False
    page = status == 200 and headers.get("content-type", "").startswith("text/html")
    return page or (status == 304 and not path.startswith("/api/"))


async def _answer(page: _Page, send: Send) -> None:
    # The layers around this one add to the headers of what they are given.
    await send({**page.start, "headers": list(page.start["headers"])})
    await send({"type": "http.response.body", "body": page.body})

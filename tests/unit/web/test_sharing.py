"""One page for all who ask at the same time, and never for somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from httpx2 import ASGITransport, AsyncClient

from cleanroom_db import listen
from cleanroom_master.web.live import News
from cleanroom_master.web.sharing import Shared


class Made:
    """An application that counts what it makes."""

    def __init__(self) -> None:
        self.count = 0
        self.news = News("unused")
        self.go_on = asyncio.Event()
        self.application = FastAPI()
        self.application.add_api_route("/page", self.page)
        self.application.add_api_route("/text", self.text)
        self.application.add_api_route("/stream", self.stream)
        self.application.add_api_route("/broken", self.broken)
        self.application.add_middleware(Shared, news=self.news)
        transport = ASGITransport(self.application, raise_app_exceptions=False)
        self.client = AsyncClient(transport=transport, base_url="http://web.example")

    async def page(self, request: Request) -> Response:
        self.count += 1
        made = self.count
        await self.go_on.wait()
        if request.headers.get("if-none-match") == '"this"':
            return Response(status_code=304, headers={"ETag": '"this"'})
        return HTMLResponse(f"page {made} for {request.headers.get('cookie')}")

    async def text(self) -> Response:
        self.count += 1
        return PlainTextResponse(str(self.count))

    async def stream(self) -> Response:
        self.count += 1

        async def events() -> AsyncIterator[str]:
            yield "event"
            await self.go_on.wait()

        return StreamingResponse(events(), media_type="text/event-stream")

    async def broken(self) -> Response:
        self.count += 1
        raise ZeroDivisionError


async def asked(made: Made, *addresses: str, **headers: str) -> list[str]:
    """What is answered to some who ask at once."""
    waiting = [asyncio.create_task(made.client.get(address, headers=headers)) for address in addresses]
    await asyncio.sleep(0.01)
    made.go_on.set()
    return [answer.text for answer in await asyncio.gather(*waiting)]


def test_who_asks_at_the_same_time_gets_the_same_page() -> None:
    async def run() -> None:
        made = Made()
        assert await asked(made, *["/page"] * 50) == ["page 1 for None"] * 50
        assert await asked(made, "/page?x=1") == ["page 2 for None"]

    asyncio.run(run())


def test_after_news_a_page_is_made_anew() -> None:
    async def run() -> None:
        made = Made()
        await asked(made, "/page")
        made.news.tell({listen.CHANGE: {"1"}})
        assert await asked(made, "/page") == ["page 2 for None"]

    asyncio.run(run())


def test_who_has_the_page_already_is_told_so_together_with_others() -> None:
    async def run() -> None:
        made = Made()
        assert await asked(made, *["/page"] * 50, **{"If-None-Match": '"this"'}) == [""] * 50
        assert made.count == 1
        assert await asked(made, *["/page"] * 50, **{"If-None-Match": '"other"'}) == ["page 2 for None"] * 50
        assert await asked(made, "/page") == ["page 3 for None"]

    asyncio.run(run())


@pytest.mark.parametrize("header", ["Cookie", "Authorization"])
def test_whoever_says_who_he_is_gets_his_own(header: str) -> None:
    async def run() -> None:
        made = Made()
        await asked(made, "/page")
        answers = [await asked(made, "/page", **{header: "me"}), await asked(made, "/page", **{header: "you"})]
        assert made.count == 3
        assert answers[0] != answers[1]
        assert await asked(made, "/page") == ["page 1 for None"]

    asyncio.run(run())


@pytest.mark.parametrize("address", ["/text", "/stream", "/broken"])
def test_what_is_no_page_is_made_for_everybody(address: str) -> None:
    async def run() -> None:
        made = Made()
        await asked(made, address, address)
        assert made.count == 2

    asyncio.run(run())

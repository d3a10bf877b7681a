"""Open pages are told of what is committed, whatever became of the database in the meantime."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from database_server import Server, add_product, begin, claim
from starlette.testclient import TestClient

from cleanroom_db import phases
from cleanroom_db.connection import Database
from cleanroom_db.roles import Role
from cleanroom_master.web.live import News

PATIENCE = 30.0


@pytest.fixture
def url(connect: Callable[[Role], Database]) -> str:
    """How the web connects."""
    return connect(Role.WEB).url


@contextlib.asynccontextmanager
async def listening(url: str) -> AsyncIterator[News]:
    """News that are heard: the connection is there once everybody was told that anything may have changed."""
    news = News(url)
    begun = news.number()
    news.start()
    try:
        async with asyncio.timeout(PATIENCE):
            while news.number() == begun:
                await asyncio.sleep(0.01)
        yield news
    finally:
        await asyncio.to_thread(news.stop)


async def told(events: AsyncIterator[str]) -> str:
    """The next event that says something."""
    async with asyncio.timeout(PATIENCE):
        async for event in events:
            if event.startswith("event:"):
                return event
    raise AssertionError("the stream ended")


def test_a_page_about_a_release_is_told_of_that_one(owner: Database, url: str) -> None:
    add_product(owner)
    first, second = claim(owner, "v1"), claim(owner, "v2")

    async def run() -> None:
        async with listening(url) as news:
            events = news.follow(first.id, news.number(first.id))
            assert await anext(events) == "retry: 1000\n\n"
            waiting = asyncio.create_task(told(events))
            held = await asyncio.to_thread(begin, owner, second)
            await asyncio.to_thread(phases.start, owner, held, 0, "build")
            everything = news.follow(None, 0)
            assert "event: change" in await told(everything)
            assert not waiting.done()
            work = await asyncio.to_thread(begin, owner, first, "other")
            await asyncio.to_thread(phases.start, owner, work, 0, "build")
            assert "event: change" in await waiting
            await events.aclose()
            await everything.aclose()
            assert news.readers == 0

    asyncio.run(run())


def test_a_page_that_was_made_before_the_news_is_told_at_once(owner: Database, url: str) -> None:
    add_product(owner)
    release = claim(owner, "v1")

    async def run() -> None:
        async with listening(url) as news:
            seen = news.number(release.id)
            held = await asyncio.to_thread(begin, owner, release)
            await asyncio.to_thread(phases.start, owner, held, 0, "build")
            async with asyncio.timeout(PATIENCE):
                while news.number(release.id) == seen:
                    await asyncio.sleep(0.01)
            assert "event: change" in await told(news.follow(release.id, seen))

    asyncio.run(run())


def test_pages_are_told_after_the_database_was_away(owner: Database, server: Server, name: str, url: str) -> None:
    add_product(owner)
    release = claim(owner, "v1")

    async def run() -> None:
        async with listening(url) as news:
            events = news.follow(release.id, news.number(release.id))
            await anext(events)
            cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            await asyncio.to_thread(server.execute, cut)
            # Something may have been missed, so everybody asks again.
            assert "event: change" in await told(events)
            held = await asyncio.to_thread(begin, owner, release)
            await asyncio.to_thread(phases.start, owner, held, 0, "build")
            assert "event: change" in await told(events)

    asyncio.run(run())


def test_a_page_says_with_which_news_it_was_made(web: TestClient, owner: Database) -> None:
    add_product(owner)
    claim(owner, "v1")
    assert 'data-live="/changes?seen=' in web.get("/").text
    assert 'data-live="/changes?release=' in web.get("/release/hello/v1").text


def test_hundreds_of_pages_share_one_connection(owner: Database, server: Server, name: str, url: str) -> None:
    async def run() -> None:
        async with listening(url) as news:
            pages = [news.follow(None, news.number()) for _ in range(500)]
            for page in pages:
                await anext(page)
            assert news.readers == 500
            with owner.transaction() as cursor:
                count = cursor.value(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = %(name)s AND usename = 'cleanroom_web'",
                    name=name,
                )
            assert count == 1
            await asyncio.to_thread(add_product, owner)
            await asyncio.to_thread(claim, owner, "v1")
            assert all(await asyncio.gather(*map(told, pages)))

    asyncio.run(run())

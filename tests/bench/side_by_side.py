"""Buildbot's own pages and ours, of the same builds in a browser: what a reader downloads, and how long he waits.

Both processes and the database are those of an installation; Buildbot's rows are written as its master writes them.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from figures import Row
from installation import master
from playwright.sync_api import Browser, Page, sync_playwright

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import Settings
from cleanroom_db.connection import Database

PRODUCTS, RELEASES, CASES, RUNS = 10, 200, 10, 5
_PATIENCE_MS = 60_000
_ROWS = Path(__file__).with_name("buildbot_builds.sql")


@dataclass(frozen=True)
class _Asked:
    """A page; a reader sees what he came for once there are so many of some elements."""

    page: str
    whose: str
    address: str
    element: str
    count: int


def measure(settings: Settings, database: Database, served: Callable[[], AbstractContextManager[int]]) -> list[Row]:
    """Fill Buildbot's record with the builds that ours has, and read both. `served` is entered to serve our pages."""
    with master(settings):
        with database.transaction() as cursor:
            cursor.execute(_ROWS.read_text())
            builder = cursor.value("SELECT id FROM buildbot.builders WHERE name LIKE 'product-1 %%' LIMIT 1")
        with served(), _browser() as browser:
            return [_read(browser, asked) for asked in _pages(settings, builder)]


def _pages(settings: Settings, builder: int) -> list[_Asked]:
    ours = f"http://127.0.0.1:{settings.whole('web.port')}"
    theirs = f"http://127.0.0.1:{settings.whole('master.port')}"
    each = RELEASES // PRODUCTS
    return [
        _Asked("one product", "Cleanroom", f"{ours}/product/product-1", ".matrix tbody tr", each),
        _Asked("one builder", "Buildbot", f"{theirs}/#/builders/{builder}", "table tbody tr", each),
        _Asked("all products", "Cleanroom", f"{ours}/", ".matrix tbody tr", 50),
        # It loads further ones when somebody scrolls.
        _Asked("waterfall", "Buildbot", f"{theirs}/#/waterfall", "svg .build", 15),
    ]


@contextmanager
def _browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        raise InfrastructureError("Debian's package chromium is missing", hint="scripts/setup packages")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def _read(browser: Browser, asked: _Asked) -> Row:
    """A page read for the first time, and again with what the browser has kept; each time in a browser that is new."""
    first: list[float] = []
    again: list[float] = []
    sizes: list[int] = []
    for _ in range(RUNS):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        seconds, size = _wait_for(context.new_page(), asked)
        first.append(seconds)
        sizes.append(size)
        again.append(_wait_for(context.new_page(), asked)[0])
        context.close()
    return {
        "page": asked.page,
        "whose": asked.whose,
        "first_s": round(statistics.median(first), 2),
        "again_s": round(statistics.median(again), 2),
        "downloaded_kB": round(statistics.median(sizes) / 1000),
    }


def _wait_for(page: Page, asked: _Asked) -> tuple[float, int]:
    """Seconds until a reader sees what he came for, and the bytes that came over the wire until then."""
    received: list[int] = []
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.loadingFinished", lambda event: received.append(int(event["encodedDataLength"])))
    begun = time.monotonic()
    page.goto(asked.address, wait_until="commit")
    page.locator(asked.element).nth(asked.count - 1).wait_for(timeout=_PATIENCE_MS)
    return time.monotonic() - begun, sum(received)

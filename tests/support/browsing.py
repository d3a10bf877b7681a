"""Somebody who reads the web status with a browser, and what goes wrong meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field

from axe_playwright_python.sync_playwright import Axe
from database_server import Server
from playwright.sync_api import Browser, Page, expect

from cleanroom_db.connection import Database
from cleanroom_master.web.site import Site

_PATIENCE_MS = 30_000
expect.set_options(timeout=_PATIENCE_MS)
_GRAVE = ("serious", "critical")
# What the browser says of an answer that the test asks for: a page that is not there is said to be one.
_EXPECTED = "Failed to load resource"


@dataclass
class Served:
    """A web status that answers at `address`."""

    address: str
    owner: Database
    site: Site
    server: Server


@dataclass
class Reader:
    """A browser's page, and what went wrong in it."""

    page: Page
    address: str
    problems: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        """Go there and wait until it is shown."""
        self.page.goto(self.address + path)
        return self.page

    def sideways(self) -> bool:
        """Whether the page, and not a table in it, can be moved sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))

    def violations(self) -> list[str]:
        """What keeps people from reading the page, as axe finds it."""
        found = Axe().run(self.page, options={"resultTypes": ["violations"]}).response["violations"]
        return [
            f"{one['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
            for one in found
            if one["impact"] in _GRAVE
            for node in one["nodes"]
        ]


def reader(browser: Browser, served: Served, **how: object) -> Reader:
    """Somebody who reads, with a browser set up in some way; see playwright's `new_context`."""
    page = browser.new_context(**how).new_page()
    page.set_default_timeout(_PATIENCE_MS)
    found = Reader(page, served.address)
    page.on("pageerror", lambda error: found.problems.append(str(error)))
    page.on(
        "console",
        lambda message: (
            found.problems.append(message.text)
            if message.type in ("error", "warning") and not message.text.startswith(_EXPECTED)
            else None
        ),
    )
    return found

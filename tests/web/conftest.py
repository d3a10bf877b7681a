"""The web status as people have it: a real server, a real database, a real browser."""

from __future__ import annotations

import itertools
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn
from browsing import Served
from database_server import Server, running_server
from people import settings_of
from playwright.sync_api import Browser, sync_playwright

from cleanroom_db.connection import Database
from cleanroom_db.roles import Role
from cleanroom_master.files import FileStore
from cleanroom_master.logs import LogStore
from cleanroom_master.web.application import create
from cleanroom_master.web.site import Site
from cleanroom_master.web.visitors import Access

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A database server for these tests."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def served(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A web status with a database of its own."""
    name = f"web_{next(_numbers)}"
    server.execute(f"CREATE DATABASE {name} TEMPLATE cleanroom")
    state: Path = tmp_path_factory.mktemp("web")
    owner = Database(server.url(Role.OWNER, name), wait=20)
    site = Site(
        Database(server.url(Role.WEB, name), wait=0.5),
        LogStore(state / "logs"),
        FileStore(state / "artifacts"),
        "http://web.example",
        "http://repository.example",
        "http://buildbot.example",
        Access(
            Database(server.url(Role.ACCESS, name), wait=0.5),
            Database(server.url(Role.READER, name), wait=0.5),
            settings_of(state),
        ),
    )
    with running(site) as address:
        yield Served(address, owner, site, server)
    owner.close()
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def closed(served: Served, tmp_path: Path) -> Iterator[Served]:
    """The same, where reading needs signing in."""
    access = served.site.access
    assert access is not None
    settings = settings_of(tmp_path, CLEANROOM_WEB_ANONYMOUS="none")
    site = replace(served.site, access=replace(access, settings=settings))
    with running(site) as address:
        yield replace(served, address=address, site=site)


@contextmanager
def running(site: Site) -> Iterator[str]:
    """A server of a site; gives its address."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    server = uvicorn.Server(uvicorn.Config(create(site), log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)


# Ends with its file: while it is there, this thread is within an event loop, in which no other can begin.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's browser, without a window."""
    program = shutil.which("chromium")
    assert program is not None, "Debian's package chromium is missing: scripts/setup packages"
    with sync_playwright() as playwright:
        # As root a browser has no sandbox; it reads nothing but pages of these tests.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()

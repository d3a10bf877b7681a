"""A real PostgreSQL: one private cluster a test session, one migrated database a test, cloned from a template."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from database_server import Server, running_server
from people import settings_of
from publishing import home_of_two_keys, open_two_keys, runtime, signer, two_keys
from shop import Shop
from starlette.testclient import TestClient

from cleanroom_db.connection import Database
from cleanroom_db.roles import Role
from cleanroom_master.files import FileStore
from cleanroom_master.logs import LogStore
from cleanroom_master.publish.signing import Signer
from cleanroom_master.web.application import create
from cleanroom_master.web.site import Site
from cleanroom_master.web.visitors import Access

__all__ = ["home_of_two_keys", "open_two_keys", "runtime", "signer", "two_keys"]

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A cluster in a short place that its unprivileged user can reach."""
    with running_server() as server:
        yield server


@pytest.fixture(autouse=True)
def no_setting_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands refuse settings that they do not know, such as the tests' own."""
    monkeypatch.delenv("CLEANROOM_TEST_STATE", raising=False)


@pytest.fixture
def name(server: Server) -> Iterator[str]:
    """The name of this test's own database."""
    database = f"test_{next(_numbers)}"
    server.execute(f"CREATE DATABASE {database} TEMPLATE cleanroom")
    yield database
    server.execute(f"DROP DATABASE {database} WITH (FORCE)")


@pytest.fixture
def connect(server: Server, name: str) -> Iterator[Callable[[Role], Database]]:
    """Connect to this test's database as a role."""
    made: list[Database] = []

    def connect(role: Role) -> Database:
        made.append(Database(server.url(role, name), wait=20))
        return made[-1]

    yield connect
    for database in made:
        database.close()


@pytest.fixture
def owner(connect: Callable[[Role], Database]) -> Database:
    """This test's database as its owner."""
    return connect(Role.OWNER)


@pytest.fixture
def site(server: Server, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This test's database and directory are those of the command line."""
    monkeypatch.setenv("CLEANROOM_DATABASE_URL", server.url(Role.OWNER, name))
    monkeypatch.setenv("CLEANROOM_STATE", str(tmp_path))
    monkeypatch.setenv("CLEANROOM_SITE", str(tmp_path))


@pytest.fixture
def master(connect: Callable[[Role], Database]) -> Database:
    """This test's database as the master."""
    return connect(Role.MASTER)


@pytest.fixture
def publisher(connect: Callable[[Role], Database]) -> Database:
    """This test's database as the publisher."""
    return connect(Role.PUBLISHER)


@pytest.fixture
def shop(owner: Database, publisher: Database, signer: Signer, tmp_path: Path) -> Shop:
    """Releases that passed, and what publishes them."""
    return Shop(owner, publisher, signer, tmp_path / "site")


@pytest.fixture
def pages(connect: Callable[[Role], Database], tmp_path: Path) -> Site:
    """What the web status of this test's database works with."""
    return Site(
        connect(Role.WEB),
        LogStore(tmp_path / "logs"),
        FileStore(tmp_path / "artifacts"),
        "http://web.example",
        "http://repository.example",
        "http://buildbot.example",
        Access(connect(Role.ACCESS), connect(Role.READER), settings_of(tmp_path)),
    )


@pytest.fixture
def web(pages: Site) -> Iterator[TestClient]:
    """A reader of the web status, who shares no page with another: each shows what was committed before."""
    with TestClient(create(pages), headers={"Cookie": "reader=alone"}) as client:
        yield client

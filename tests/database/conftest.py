"""A real PostgreSQL: one private cluster a test session, one migrated database a test, cloned from a template."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from database_server import Server
from publishing import home_of_two_keys, open_two_keys, signer, two_keys
from shop import Shop

from cleanroom_base import settings as site
from cleanroom_db import cluster, migrate
from cleanroom_db.connection import Database
from cleanroom_db.roles import Role
from cleanroom_master.publish.signing import Signer

__all__ = ["home_of_two_keys", "open_two_keys", "signer", "two_keys"]

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A cluster in a short place that its unprivileged user can reach."""
    place = Path(tempfile.mkdtemp(prefix="cr-", dir="/tmp"))
    place.chmod(0o755)
    settings = site.load({"CLEANROOM_STATE": str(place), "CLEANROOM_SITE": str(place)})
    try:
        cluster.ensure(settings)
        migrate.migrate(settings)
        server = Server(settings)
        # Making and dropping a database a test would otherwise wait for the disk; nothing here outlives the session.
        server.execute("ALTER SYSTEM SET fsync = off")
        server.execute("SELECT pg_reload_conf()")
        yield server
    finally:
        cluster.stop(settings)
        shutil.rmtree(place)
        shutil.rmtree(settings.runtime, ignore_errors=True)


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

"""Buildbot's configuration: a pure function, and what Buildbot accepts."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.config.master import MasterConfig
from buildbot.worker.protocols.base import Connection
from sqlalchemy.engine import make_url
from twisted.internet import defer

from cleanroom_base.settings import load
from cleanroom_db.connection import Database
from cleanroom_db.listen import CHANNELS, Listener
from cleanroom_master.buildbot.configuration import HostWorker, Inputs, configure
from cleanroom_master.buildbot.inputs import buildbot_url
from cleanroom_master.dispatch import Dispatch
from cleanroom_recipes.protocol import VERSION, WORKER_FILE

BUILDS = (("hello", "debian-12/deb"), ("tally", "debian-12/deb"), ("tally", "debian-12/rpm"))


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    settings = load(
        {"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path), "CLEANROOM_MASTER_PORT": "1234"}
    )
    # Nothing connects before it is used.
    url = "postgresql://nobody@/none"
    with closing(Listener(url, CHANNELS)) as listener:
        dispatch = Dispatch(settings, Database(url, wait=1), listener)
        return Inputs(settings, "postgresql+psycopg2://nobody@/none", {"host": "password"}, BUILDS, dispatch)


def test_buildbot_accepts_it(inputs: Inputs, tmp_path: Path) -> None:
    config = MasterConfig.loadFromDict(configure(inputs), str(tmp_path / "master.cfg"))
    # Buildbot adds one of its own, which clears away old logs.
    assert {builder.name for builder in config.builders} >= {f"{product} {target}" for product, target in BUILDS}
    assert "attempts" in config.schedulers
    assert config.buildbotURL == "http://127.0.0.1:1234/"
    assert "host" in {worker.workername for worker in config.workers}


def test_buildbot_accepts_a_site_that_has_no_product_yet(inputs: Inputs, tmp_path: Path) -> None:
    empty = configure(replace(inputs, builds=()))
    assert MasterConfig.loadFromDict(empty, str(tmp_path / "master.cfg")).builders


def test_it_depends_on_nothing_else(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    before = configure(inputs)
    monkeypatch.setenv("CLEANROOM_MASTER_PORT", "4321")
    after = configure(inputs)
    assert list(before) == list(after)
    for key in ("title", "buildbotURL", "db", "protocols", "logMaxSize"):
        assert before[key] == after[key]
    assert before["builders"][0].getConfigDict().keys() == after["builders"][0].getConfigDict().keys()


def test_builds_never_share_a_directory(inputs: Inputs) -> None:
    directories = [builder.workerbuilddir for builder in configure(inputs)["builders"]]
    assert len(set(directories)) == len(directories)
    assert all("/" not in directory for directory in directories)


def test_probes_have_builders_beside_that_of_releases(inputs: Inputs) -> None:
    configured = configure(replace(inputs, probed=(("tally", "debian-12/deb", 2),)))
    names = [builder.name for builder in configured["builders"]]
    assert names[len(BUILDS) :] == ["tally debian-12/deb probe 1", "tally debian-12/deb probe 2"]
    assert configured["schedulers"][0].builderNames == names
    directories = {builder.workerbuilddir for builder in configured["builders"]}
    assert len(directories) == len(names)


def test_nobody_builds_by_buildbot_s_pages(inputs: Inputs) -> None:
    authz = configure(inputs)["www"]["authz"]
    assert (authz.allowRules[0].role, authz.roleMatchers) == ("nobody", [])


def test_buildbot_s_tables_have_a_schema_of_their_own() -> None:
    url = make_url(buildbot_url("postgresql://us:p%40ss@/cleanroom?host=%2Frun%2Fx&options=-c%20role%3Dmaster"))
    assert (url.drivername, url.password, url.query["host"]) == ("postgresql+psycopg2", "p@ss", "/run/x")
    assert url.query["options"] == "-c role=master -csearch_path=buildbot"


class Attaching(Connection):
    """A connection from a worker, as far as Buildbot looks at it."""

    def __init__(self, **info: str) -> None:
        super().__init__("host")
        self.info = {"system": "posix", **info}
        self.lost = False

    def get_peer(self) -> str:
        return "host"

    def loseConnection(self) -> None:  # noqa: N802 - Buildbot's name
        self.lost = True
        self.notifyDisconnected()


@pytest.mark.parametrize(
    ("said", "version", "works"),
    [(None, 1, False), ("2", 2, True), ("3", 3, True), ("4", 4, False), ("0", 0, False), ("x", 0, False)],
)
def test_a_worker_of_a_version_that_is_not_understood_gets_nothing_to_do(
    inputs: Inputs, said: str | None, version: int, works: bool
) -> None:
    assert VERSION == 3
    [worker] = configure(inputs)["workers"]
    worker.locksAvailable = lambda: True
    for connection in (
        Attaching(**{WORKER_FILE: str(VERSION)}),
        Attaching(**({} if said is None else {WORKER_FILE: said})),
    ):
        worker.conn = connection
        worker._applyWorkerInfo(connection.info)
    assert worker.protocol == version
    assert worker.canStartBuild() is works


# -- a worker that comes or goes while Buildbot's own database is away --------------------------------------------


def _away(*_: Any, **__: Any) -> defer.Deferred[Any]:
    return defer.fail(ConnectionError("the database is away"))


@pytest.fixture
def worker(inputs: Inputs) -> HostWorker:
    """A worker of a master that cannot write; `lost` are those of which its builders know that they are gone."""
    [worker] = configure(inputs)["workers"]
    lost: list[HostWorker] = []
    updates = SimpleNamespace(workerConnected=_away, workerDisconnected=_away)
    master = SimpleNamespace(
        data=SimpleNamespace(updates=updates), botmaster=SimpleNamespace(workerLost=lost.append), masterid=1
    )
    worker.parent = SimpleNamespace(master=master)
    worker.missing_timeout = 0
    worker.lost = lost
    return worker


def test_a_worker_that_is_lost_is_no_builder_s_any_more_although_that_cannot_be_written(worker: HostWorker) -> None:
    """It would count as busy with the build that it had, when it comes again."""
    worker.conn = Attaching()
    found: list[object] = []
    worker.detached().addBoth(found.append)
    assert (found, worker.lost, worker.conn) == ([None], [worker], None)


def test_a_worker_that_comes_while_that_cannot_be_written_is_to_come_again(worker: HostWorker) -> None:
    """Buildbot would keep it, and give it nothing."""
    connection = Attaching()
    worker.attached(connection)
    assert (connection.lost, worker.conn) == (True, None)

"""Processes that are killed in mid-work: nothing is lost, nothing is built twice, and the way goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from live_site import LiveSite, until

from cleanroom_db import cluster
from cleanroom_master import supervisor

pytestmark = pytest.mark.timeout(300)
# Long enough to be interrupted, short enough to be done again.
SLOW = "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 1; done; echo done > result.txt"
STEP = "command-1"
DOWN_SECONDS = 60.0


@pytest.fixture
def building(site: LiveSite, request: pytest.FixtureRequest) -> str:
    """The name of a product whose release v1 is being built by its own command."""
    name = request.node.name.replace("test_", "").replace("_", "-")[:60]
    site.script(name, SLOW).tag("v1")
    until(lambda: site.step(name, "v1") == STEP, 120, f"{name} is built")
    return name


def _attempts(site: LiveSite, name: str) -> list[dict[str, Any]]:
    [build] = site.published(name, "v1")["builds"]
    attempts: list[dict[str, Any]] = build["attempts"]
    return attempts


def _in_use(site: LiveSite) -> list[str]:
    """The guests that are not only kept ready."""
    return [guest["name"] for guest in site.ask("guest", "list") if guest["state"] != "ready"]


def _no_guest_is_left(site: LiveSite) -> bool:
    return not _in_use(site)


def test_killed_master(site: LiveSite, building: str) -> None:
    site.kill("master")
    # While it is away, more is recorded.
    site.script("recorded-meanwhile", "echo done > result.txt").tag("v1")
    attempts = _attempts(site, building)
    assert [attempt["outcome"] for attempt in attempts] == ["infrastructure", "passed"]
    assert attempts[0]["why"] == "the master was restarted"
    assert [attempt["outcome"] for attempt in _attempts(site, "recorded-meanwhile")] == ["passed"]
    for name in (building, "recorded-meanwhile"):
        assert site.sql("SELECT count(*) FROM cleanroom.release WHERE product = %s", name) == [(1,)]
    until(lambda: _no_guest_is_left(site), 60, "guests are gone")


def test_killed_worker(site: LiveSite, building: str) -> None:
    [guest] = _in_use(site)
    site.kill("worker")
    attempts = _attempts(site, building)
    assert [attempt["outcome"] for attempt in attempts] == ["infrastructure", "passed"]
    until(lambda: _no_guest_is_left(site), 60, "guests are gone")
    assert not (site.state / "guests" / guest).exists()


def test_killed_publisher(site: LiveSite) -> None:
    before = site.ask("repository", "show")["generation"] or 0
    site.kill("publisher")
    site.script("meets-no-publisher", "echo done > result.txt").tag("v1")
    site.published("meets-no-publisher", "v1")
    assert site.ask("repository", "show")["generation"] > before


@contextmanager
def _no_supervisor(site: LiveSite) -> Iterator[None]:
    """Keep the supervisor, which would start the database again, from doing anything."""
    process = supervisor.running(site.settings)
    assert process is not None
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def test_a_database_that_is_down_for_a_minute(site: LiveSite, building: str) -> None:
    repository = site.script("tagged-meanwhile", "echo done > result.txt")
    processes = {name: site.process(name) for name in ("refs", "master", "worker", "publisher", "repository", "web")}
    address = site.ask("status")["web_url"]
    with _no_supervisor(site):
        cluster.stop(site.settings)
        back = time.monotonic() + DOWN_SECONDS
        listed = site.run("release", "list", CLEANROOM_DATABASE_WAIT="2")
        assert (listed.status, "did not answer" in listed.error) == (3, True), listed
        page = requests.get(address, timeout=60)
        assert (page.status_code, "The database is away" in page.text) == (503, True)
        repository.tag("v1")
        while time.monotonic() < back:
            time.sleep(1)
    site.published("tagged-meanwhile", "v1")
    assert "tagged-meanwhile" in requests.get(address, timeout=60).text
    attempts = _attempts(site, building)
    assert attempts[-1]["outcome"] == "passed"
    assert {attempt["outcome"] for attempt in attempts[:-1]} <= {"infrastructure"}
    assert site.sql("SELECT count(*) FROM cleanroom.release WHERE product = %s", building) == [(1,)]
    until(lambda: _all_run(site), 60, "all services run")
    # They waited for it, as they are to.
    assert {name: site.process(name) for name in processes} == processes
    until(lambda: _no_guest_is_left(site), 60, "guests are gone")


def _all_run(site: LiveSite) -> bool:
    return all(service["state"] == "running" for service in site.ask("status")["services"])


def test_killed_in_mid_publication(site: LiveSite) -> None:
    """Whenever the publisher dies, what it had to do is done once."""
    name = "published-once"
    repository = site.script(name, "echo done > result.txt")
    for number in (1, 2):
        repository.commit(number=str(number))
        repository.tag(f"v{number}")
        until(
            lambda ref=f"v{number}": (site.show(name, ref) or {}).get("state") in ("passed", "published"), 120, "passed"
        )
        site.kill("publisher")
        site.published(name, f"v{number}")
    rows = site.sql("SELECT ref, count(*) FROM cleanroom.release WHERE product = %s GROUP BY ref", name)
    assert sorted(rows) == [("v1", 1), ("v2", 1)]
    current = site.ask("repository", "show")["generation"]
    assert (site.state / "repository" / "current").resolve().name == str(current), Path(site.state)

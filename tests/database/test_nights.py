"""What a channel publishes is tested every night, and what changed around a failure is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from database_server import Server, add_product, record_tags
from recorded import TARGET, publish

from cleanroom_base.settings import load
from cleanroom_db import attempts, nights, phases, releases, trials
from cleanroom_db.attempts import Lease, RetryPolicy
from cleanroom_db.connection import Database
from cleanroom_db.phases import Reset
from cleanroom_db.releases import Planned, PlannedBuild
from cleanroom_db.roles import Role
from cleanroom_db.states import TrialPurpose
from cleanroom_master import cli, schedules
from cleanroom_master.planning import Planner
from cleanroom_recipes import loader
from cleanroom_recipes.model import Outcome

DIGESTS = ("1" * 64, "2" * 64)
EVENING = datetime(2030, 1, 31, 22, tzinfo=UTC)
Packages = Mapping[str, str]


@pytest.fixture
def planner(tmp_path: Path) -> Planner:
    return Planner(load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path)}))


def scheduled(master: Database, planner: Planner, now: datetime, at: str = "02:30") -> int:
    """A turn of the master at that time; how many nights there are then."""
    variables = {"CLEANROOM_SCHEDULES_NIGHTLY": at, "CLEANROOM_SCHEDULES_CHANNELS": "testing"}
    schedules.run_due(master, planner, load(variables), now)
    return len(nights.history(master, "testing"))


def work(database: Database, how: Mapping[str, Outcome], packages: Packages, digest: str = DIGESTS[0]) -> None:
    """What is due first is worked on: its phases end so, or pass, with these packages in the end."""
    one = attempts.due(database)[0]
    held = Lease(one.id, "master/1")
    assert attempts.lease(database, held.attempt_id, held.owner, 60)
    ended = [how.get(name, Outcome.PASSED) for name in one.phases]
    for position, (name, outcome) in enumerate(zip(one.phases, ended, strict=True)):
        row = phases.start(database, held, position, name)
        phases.reset(database, held, row, Reset("debian-12", digest, "container", "repository", "overlay", 0.1))
        if packages:
            phases.set_packages(database, held, row, packages)
        phases.finish(database, held, row, outcome, seconds=1, command_seconds=1)
    worst = Outcome.FAILED if Outcome.FAILED in ended else Outcome.PASSED
    attempts.finish(database, held.attempt_id, held.owner, worst, "regress: no", RetryPolicy(limit=1))


@pytest.fixture
def published(owner: Database) -> None:
    """One release of `hello` is published."""
    add_product(owner)
    record_tags(owner, "v1")
    recipe = loader.load(b'builder = "deb"\n', source="the recipe", name="hello", url="file:///x")
    build = PlannedBuild(TARGET, ("build", "install", "upgrade", "regress"))
    planned = Planned((build,), loader.to_json(recipe), loader.digest(recipe), "testing")
    assert releases.claim_next(owner, lambda *_: planned) is not None
    work(owner, {}, {"libc6": "1", "gone": "1"})
    publish(owner)


def shown(server: Server, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CLEANROOM_DATABASE_URL", server.url(Role.OWNER, name))
    capsys.readouterr()
    assert cli.run(["channel", "history", "testing", "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_night_begins_once_whatever_the_clock_and_the_master_do(
    master: Database, planner: Planner, published: None
) -> None:
    early = datetime(2030, 1, 31, 2, 29, tzinfo=UTC)
    assert scheduled(master, planner, early) == 0
    assert scheduled(master, planner, early + timedelta(minutes=1)) == 1
    assert scheduled(master, planner, EVENING) == 1
    # The clock goes back, by minutes and by days.
    assert scheduled(master, planner, early + timedelta(minutes=2)) == 1
    assert scheduled(master, planner, EVENING - timedelta(days=5)) == 1
    # A master that was away at the time makes up for it.
    assert scheduled(master, planner, EVENING + timedelta(days=1)) == 2
    [trial, _] = trials.list_latest(master, purpose=TrialPurpose.NIGHTLY)
    assert (trial.product, trial.ref, trial.channel, trial.requested_by) == ("hello", "v1", "testing", "schedule")


def test_without_a_time_there_are_no_nights(master: Database, planner: Planner, published: None) -> None:
    schedules.run_due(master, planner, load({}), EVENING)
    assert nights.history(master, "testing") == []


def test_what_is_published_is_tested_behind_everything_else(
    owner: Database, master: Database, planner: Planner, published: None
) -> None:
    scheduled(master, planner, EVENING)
    record_tags(owner, "v2")
    planned = Planned((PlannedBuild(TARGET, ("build",)),), {"name": "hello"}, "digest", "testing")
    assert releases.claim_next(owner, lambda *_: planned) is not None
    first, second = attempts.due(master)
    assert (first.phases, second.phases) == (("build",), ("install", "regress"))
    assert (second.priority, first.priority) == (9, 0)


def test_a_failure_says_what_changed_since_the_last_good_night(
    server: Server,
    name: str,
    owner: Database,
    master: Database,
    planner: Planner,
    published: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduled(master, planner, EVENING)
    work(master, {}, {"libc6": "2", "gone": "1", "same": "1"})
    scheduled(master, planner, EVENING + timedelta(days=1))
    work(master, {"regress": Outcome.FAILED}, {"libc6": "3", "same": "1", "more": "1"}, DIGESTS[1])
    bad, good = shown(server, name, capsys, monkeypatch)
    assert (good["state"], good["passed"], good["date"]) == ("passed", 1, "2030-01-31")
    assert (bad["state"], bad["failed"], bad["open"]) == ("failed", 1, 0)
    assert list(bad) == [
        *("channel", "date", "started_at", "requested_by", "state", "passed", "failed", "open", "results"),
    ]
    [result] = bad["results"]
    assert list(result) == ["product", "ref", "target", "outcome", "why", "phase", "changed"]
    assert (result["product"], result["target"], result["phase"]) == ("hello", TARGET, "regress")
    changed = result["changed"]
    assert list(changed) == [
        *("since", "sentence", "image", "release", "upgraded", "added", "removed", "packages_known"),
    ]
    assert changed["image"] == {"name": "debian-12", "before": DIGESTS[0], "now": DIGESTS[1]}
    assert changed["upgraded"] == [{"name": "libc6", "before": "2", "now": "3"}]
    assert (changed["added"], changed["removed"], changed["packages_known"]) == ({"more": "1"}, {"gone": "1"}, True)
    assert changed["sentence"].endswith(
        "changed: image debian-12 111111111111 -> 222222222222, libc6 2 -> 3, +more 1, -gone 1"
    )
    assert cli.run(["channel", "history", "testing"]) == 0
    assert "libc6 2 -> 3" in capsys.readouterr().out


def test_the_first_night_is_compared_with_the_build_of_the_release(
    server: Server,
    name: str,
    master: Database,
    planner: Planner,
    published: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduled(master, planner, EVENING)
    work(master, {"install": Outcome.FAILED}, {"libc6": "1", "gone": "1"})
    [night] = shown(server, name, capsys, monkeypatch)
    assert night["results"][0]["changed"]["sentence"].endswith("neither image nor packages changed")


def test_a_guest_that_did_not_say_its_packages_is_not_taken_for_empty(
    server: Server,
    name: str,
    master: Database,
    planner: Planner,
    published: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduled(master, planner, EVENING)
    work(master, {"regress": Outcome.FAILED}, {})
    [night] = shown(server, name, capsys, monkeypatch)
    changed = night["results"][0]["changed"]
    assert (changed["removed"], changed["packages_known"]) == ({}, False)
    assert changed["sentence"].endswith("changed: packages that were not recorded")


def test_a_sentence_names_the_first_packages_only() -> None:
    row = {"at": EVENING, "ref": "v1", "image_digest": DIGESTS[0], "packages": {}}
    changed = nights.compare("debian-12", row, {**row, "packages": {f"p{number:02}": "1" for number in range(30)}})
    assert changed.sentence.endswith("+p19 1, 10 more packages")
    assert len(changed.added) == 30


def test_a_channel_is_tested_when_a_person_says_so(
    server: Server,
    name: str,
    tmp_path: Path,
    master: Database,
    published: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLEANROOM_DATABASE_URL", server.url(Role.OWNER, name))
    assert cli.run(["channel", "test", "testing", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"channel": "testing", "trials": 1}
    assert cli.run(["channel", "test", "testing"]) == 0
    assert cli.run(["channel", "test", "stable"]) == 0
    assert capsys.readouterr().out.endswith("nothing is published in stable yet\n")
    [second, first] = shown(server, name, capsys, monkeypatch)
    assert (first["state"], first["open"], first["date"], second["state"]) == ("running", 1, None, "running")
    assert cli.run(["channel", "test", "../x"]) == 2
    assert cli.run(["channel", "history", "testing", "--limit", "0"]) == 2


def test_each_set_of_packages_is_kept_once(
    owner: Database, master: Database, planner: Planner, published: None
) -> None:
    scheduled(master, planner, EVENING)
    work(master, {}, {"libc6": "1", "gone": "1"})
    with owner.transaction() as cursor:
        assert cursor.value("SELECT count(*) FROM cleanroom.package_state") == 1
        assert cursor.value("SELECT count(*) FROM cleanroom.phase WHERE package_state IS NOT NULL") == 6

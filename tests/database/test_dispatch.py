"""What the master makes of a phase's events: rows, logs on disk, kept artifacts, and one verdict."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from database_server import COMMIT, DIGEST, add_product, record_tags

from cleanroom_base.settings import load
from cleanroom_db import attempts, generations, releases, services, trials
from cleanroom_db.attempts import LeaseLost
from cleanroom_db.connection import Database
from cleanroom_db.generations import NewPackage
from cleanroom_db.listen import CHANNELS, Listener
from cleanroom_db.releases import Planned, PlannedBuild, Release
from cleanroom_db.states import HostState, ReleaseState, TrialPurpose
from cleanroom_db.trials import NewTrial
from cleanroom_db.view import release_view
from cleanroom_master.dispatch import Dispatch, Job, PhaseRun
from cleanroom_recipes import events, loader, request
from cleanroom_recipes.codec import from_plain, to_plain
from cleanroom_recipes.conditions import Conditions
from cleanroom_recipes.model import GuestNetwork, Isolation, Outcome, RefKind
from cleanroom_recipes.plan import OTHER_DATE

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
RECIPE = loader.load(b'builder = "deb"\n', source="the recipe", name="hello", url="https://example.org/hello.git")
CONTENT = b"content of a package"
CONTENT_SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def dispatch(owner: Database, master: Database, tmp_path: Path) -> Iterator[Dispatch]:
    add_product(owner)
    variables = {
        "CLEANROOM_STATE": str(tmp_path),
        "CLEANROOM_SITE": str(tmp_path),
        "CLEANROOM_MASTER_RETRY_PAUSE": "0.01",
    }
    with closing(Listener(master.url, CHANNELS)) as listener:
        yield Dispatch(load(variables), master, listener)


@pytest.fixture
def release(owner: Database, dispatch: Dispatch) -> Release:
    return claim(owner, dispatch, "build", "install")


def claim(
    owner: Database, dispatch: Dispatch, *phases: str, tag: str = "v1", gates: tuple[str, ...] = ("builds",)
) -> Release:
    """The release of a new tag, with one build of these phases."""
    record_tags(owner, tag)
    planned = Planned(
        (PlannedBuild("debian-12/deb", phases),),
        loader.to_json(RECIPE),
        loader.digest(RECIPE),
        "testing",
        gates=gates,
    )
    release = releases.claim_next(dispatch.database, lambda event, product: planned)
    assert release is not None
    return release


@pytest.fixture
def job(dispatch: Dispatch, release: Release) -> Job:
    return begin(dispatch)


def begin(dispatch: Dispatch) -> Job:
    """Lease what is due."""
    due: list[Any] = []
    while not due:
        due = dispatch.turn()
    job = dispatch.lease(due[0].id, f"{dispatch.name}/{due[0].number}", "worker", "http://localhost/")
    assert job is not None
    return job


def reset() -> events.Reset:
    return events.Reset(NOW, "guest", "debian-12", DIGEST, Isolation.CONTAINER, "overlay", GuestNetwork.MIRROR, 1.5)


def step(name: str, text: str, outcome: Outcome = Outcome.PASSED, *, truncated: bool = False) -> list[events.Event]:
    status = 0 if outcome is Outcome.PASSED else 1
    return [
        events.StepStarted(NOW, name, 0),
        events.Output(NOW, name, text),
        events.StepFinished(NOW, name, outcome, status, 2.0, None, len(text), truncated),
    ]


def artifact(
    file: str = "hello_1_amd64.deb", sha256: str = CONTENT_SHA256, size: int = len(CONTENT)
) -> events.Artifact:
    return events.Artifact(NOW, file, size, sha256, "deb", "hello", "1", "amd64")


def finished(outcome: Outcome = Outcome.PASSED, why: str | None = None) -> events.PhaseFinished:
    return events.PhaseFinished(NOW, outcome, why, 5.0, 3.0)


def shown(dispatch: Dispatch) -> Any:
    [build] = release_view(dispatch.database, "hello", "v1")["builds"]
    return build


def play(dispatch: Dispatch, job: Job, name: str, *told: events.Event) -> PhaseRun:
    """A phase whose worker tells this."""
    phase = dispatch.begin_phase(job, name)
    phase.record(told)
    return phase


def test_a_phase_that_passes_becomes_rows_a_log_and_kept_artifacts(dispatch: Dispatch, job: Job) -> None:
    cases = (events.TestCase("one", Outcome.PASSED), events.TestCase("two", Outcome.SKIPPED))
    told = [
        events.PhaseStarted(NOW, "build", job.correlation),
        reset(),
        *step("compile", "made\n"),
        events.counted(NOW, "compile", cases),
        events.Version(NOW, "1"),
        artifact(),
        finished(),
    ]
    phase = play(dispatch, job, "build", *told)
    assert phase.artifacts
    phase.incoming.mkdir(parents=True)
    (phase.incoming / "hello_1_amd64.deb").write_bytes(CONTENT)
    assert phase.take_artifacts() is None
    assert phase.close() is Outcome.PASSED
    play(dispatch, job, "install", reset(), *step("install", "there\n"), finished()).close()
    dispatch.finish(job)

    view = release_view(dispatch.database, "hello", "v1")
    assert (view["state"], view["version"]) == (ReleaseState.PASSED, "1")
    build = shown(dispatch)
    assert (build["outcome"], build["isolation"]) == ("passed", "container")
    first = build["phases"][0]
    assert (first["outcome"], first["seconds"], first["command_seconds"], first["reset_seconds"]) == (
        "passed",
        5,
        3,
        1.5,
    )
    assert first["tests"] == {"passed": 1, "failed": 0, "skipped": 1, "flaky": 0}
    [recorded] = first["steps"]
    assert (recorded["exit_status"], recorded["seconds"], recorded["log"]["truncated"]) == (0, 2.0, False)
    assert dispatch.logs.read(recorded["log"]["sha256"]) == b"made\n"
    [kept] = build["artifacts"]
    assert (kept["file"], kept["sha256"], kept["phase"]) == ("hello_1_amd64.deb", CONTENT_SHA256, "build")
    assert dispatch.files.path(CONTENT_SHA256).read_bytes() == CONTENT


def test_test_cases_are_kept_as_they_were_told(dispatch: Dispatch, job: Job) -> None:
    odd = "a\tb\\N\\.\r\n\\"
    cases = [
        events.TestCase(odd, Outcome.FAILED, 1e-05, odd, 7),
        events.TestCase("\\N", Outcome.FLAKY, None, None, None),
        *(events.TestCase("twice", outcome) for outcome in (Outcome.PASSED, Outcome.FAILED)),
        # More than become rows at once.
        *(events.TestCase(f"many {number}", Outcome.FAILED, line=number + 8) for number in range(7200)),
    ]
    told = list(events.in_events(NOW, "compile", cases))
    assert len(told) == 15
    begun, output, ended = step("compile", "made\n")
    assert isinstance(ended, events.StepFinished)
    play(dispatch, job, "build", begun, output, *told, replace(ended, remark="some were left out"), finished()).close()
    phase = shown(dispatch)["phases"][0]
    assert phase["tests"] == {"passed": 2, "failed": 7202, "skipped": 0, "flaky": 1}
    assert (phase["steps"][0]["outcome"], phase["steps"][0]["remark"]) == ("passed", "some were left out")
    failing = phase["failing"]
    assert failing[:2] == [
        {"step": "compile", "name": odd, "outcome": "failed", "seconds": 1e-05, "message": odd, "line": 7},
        {"step": "compile", "name": "\\N", "outcome": "flaky", "seconds": None, "message": "", "line": None},
    ]
    assert [case["name"] for case in failing[2:]] == ["twice", *(f"many {number}" for number in range(17))]
    with dispatch.database.transaction() as cursor:
        assert cursor.value("SELECT count(*) FROM cleanroom.test_case") == len(cases)


def test_a_product_that_fails_is_not_tried_again(dispatch: Dispatch, job: Job) -> None:
    why = "compile ended with status 1"
    play(
        dispatch, job, "build", reset(), *step("compile", "no\n", Outcome.FAILED), finished(Outcome.FAILED, why)
    ).close()
    dispatch.finish(job)
    view = release_view(dispatch.database, "hello", "v1")
    assert (view["state"], view["why"]) == (ReleaseState.FAILED, f"debian-12/deb: build: {why}")
    assert dispatch.turn() == []


def test_a_worker_that_says_no_end_was_lost_and_what_it_said_is_kept(dispatch: Dispatch, job: Job) -> None:
    told = [reset(), events.StepStarted(NOW, "compile", 0), events.Output(NOW, "compile", "half a\n")]
    tests = [
        next(events.in_events(NOW, step, [events.TestCase(name, Outcome.FAILED)]))
        for step, name in (("compile", "one"), ("compile", "two"), ("other", "three"))
    ]
    assert play(dispatch, job, "build", *told, *tests).close() is Outcome.INFRASTRUCTURE
    build = shown(dispatch)
    assert [(case["step"], case["name"]) for case in build["phases"][0]["failing"]] == [
        ("compile", "one"),
        ("compile", "two"),
        ("other", "three"),
    ]
    [recorded] = build["phases"][0]["steps"]
    assert recorded["outcome"] == "infrastructure"
    assert dispatch.logs.read(recorded["log"]["sha256"]) == b"half a\n"
    assert list((dispatch.places.logs / "growing").iterdir()) == []


def test_a_log_that_was_cut_says_so(dispatch: Dispatch, job: Job) -> None:
    play(dispatch, job, "build", reset(), *step("compile", "for ever\n", truncated=True), finished()).close()
    assert shown(dispatch)["phases"][0]["steps"][0]["log"]["truncated"] is True


def test_a_step_that_prints_nothing_has_no_log(dispatch: Dispatch, job: Job) -> None:
    quiet = [one for one in step("compile", "") if not isinstance(one, events.Output)]
    play(dispatch, job, "build", reset(), *quiet, finished()).close()
    assert shown(dispatch)["phases"][0]["steps"][0]["log"]["sha256"] is None


@pytest.mark.parametrize("fault", ["missing", "other", "longer", "link"])
def test_an_artifact_that_is_not_what_was_announced_spoils_the_attempt(
    dispatch: Dispatch, job: Job, tmp_path: Path, fault: str
) -> None:
    phase = play(dispatch, job, "build", reset(), artifact(size=len(CONTENT) + (fault == "longer")), finished())
    phase.incoming.mkdir(parents=True)
    file = phase.incoming / "hello_1_amd64.deb"
    if fault == "link":
        (tmp_path / "secret").write_bytes(CONTENT)
        file.symlink_to(tmp_path / "secret")
    elif fault != "missing":
        file.write_bytes(b"other" if fault == "other" else CONTENT)
    assert phase.take_artifacts() is Outcome.INFRASTRUCTURE
    dispatch.finish(job)
    build = shown(dispatch)
    assert build["artifacts"] == []
    assert build["attempts"][0]["outcome"] == "infrastructure"
    assert "hello_1_amd64.deb" in build["attempts"][0]["why"]
    assert not dispatch.files.path(CONTENT_SHA256).exists()


def test_what_a_build_made_is_looked_at_for_conflicts_before_the_verdict(owner: Database, dispatch: Dispatch) -> None:
    claim(owner, dispatch, "build", gates=("builds", "no-conflicts"))
    job = begin(dispatch)
    phase = play(dispatch, job, "build", reset(), artifact(), finished())
    phase.incoming.mkdir(parents=True)
    (phase.incoming / "hello_1_amd64.deb").write_bytes(CONTENT)
    assert phase.take_artifacts() is None
    phase.close()
    dispatch.finish(job)
    view = release_view(dispatch.database, "hello", "v1")
    # It is not even a package.
    assert view["state"] == ReleaseState.HELD
    assert "debian-12/deb hello_1_amd64.deb: it is no whole Debian package" in view["why"]
    assert dispatch.turn() == []


def test_three_lost_attempts_hold_the_release_and_never_fail_it(dispatch: Dispatch, release: Release) -> None:
    for number in (1, 2, 3):
        job = begin(dispatch)
        play(dispatch, job, "build", reset()).lost(f"guest {number} was lost")
        dispatch.finish(job)
    view = release_view(dispatch.database, "hello", "v1")
    assert (view["state"], view["why"]) == (ReleaseState.HELD, "debian-12/deb: build: guest 3 was lost")
    assert [one["outcome"] for one in shown(dispatch)["attempts"]] == ["infrastructure"] * 3
    assert dispatch.turn() == []


def test_an_attempt_is_leased_once(dispatch: Dispatch, job: Job) -> None:
    assert dispatch.lease(job.attempt, "another", "worker", "") is None
    assert dispatch.renew(job)


def test_a_cancelled_attempt_is_not_written_to(dispatch: Dispatch, job: Job, release: Release) -> None:
    phase = play(dispatch, job, "build", reset())
    attempts.cancel(dispatch.database, release.id, "anna does not want it")
    assert not dispatch.renew(job)
    with pytest.raises(LeaseLost):
        phase.record(step("compile", "too late\n"))
    with pytest.raises(LeaseLost):
        phase.close()
    dispatch.finish(job)
    view = release_view(dispatch.database, "hello", "v1")
    assert (view["state"], view["why"]) == (ReleaseState.CANCELLED, "debian-12/deb: anna does not want it")


def test_a_master_that_starts_again_gives_up_what_it_had_begun(dispatch: Dispatch, job: Job) -> None:
    play(dispatch, job, "build", reset())
    (dispatch.places.incoming / "7-build").mkdir(parents=True)
    dispatch.places.sources.mkdir(parents=True)
    (dispatch.places.sources / "7.tar").write_bytes(b"left")
    dispatch.take_over()
    [first, second] = shown(dispatch)["attempts"]
    assert (first["outcome"], first["why"], second["outcome"]) == ("infrastructure", "the master was restarted", None)
    assert not dispatch.places.incoming.exists()
    assert not dispatch.places.sources.exists()
    assert begin(dispatch).attempt != job.attempt


def test_the_request_names_what_the_worker_needs(dispatch: Dispatch, job: Job) -> None:
    job.commit_time = NOW
    phase = dispatch.begin_phase(job, "install")
    request = phase.request(Path("/srv/build"))
    assert (request["commit"], request["expected_version"], request["attempt"]) == (COMMIT, "1", job.attempt)
    assert (request["source"], request["artifacts"]) == (None, "/srv/build/artifacts")
    assert request["output"] == f"/srv/build/{phase.output}"
    assert phase.downloads == []
    json.dumps(request)


def test_a_phase_with_nothing_to_do_needs_no_worker(owner: Database, dispatch: Dispatch) -> None:
    claim(owner, dispatch, "upgrade", "regress")
    job = begin(dispatch)
    upgrade = dispatch.begin_phase(job, "upgrade")
    assert upgrade.needless is not None
    assert upgrade.skip(upgrade.needless) is Outcome.SKIPPED
    [row] = shown(dispatch)["phases"]
    assert (row["outcome"], row["why"]) == ("skipped", "nothing is published to upgrade from")
    # Whether this one has anything to do is seen in the source.
    assert dispatch.begin_phase(job, "regress").needless is None


def test_an_upgrade_is_tried_from_every_channel_that_publishes_something_else(
    owner: Database, dispatch: Dispatch
) -> None:
    earlier = claim(owner, dispatch, "build")
    # Stable has what testing has; snapshots are another build; what is newest of a channel counts.
    for channel, content in (("testing", "1"), ("stable", "1"), ("snapshots", "2")):
        publish(owner, channel, earlier, content)
    upgrades = ("upgrade", "upgrade-snapshots", "upgrade-testing", "upgrade-stable")
    claim(owner, dispatch, *upgrades, tag="v2")
    job = begin(dispatch)
    while job.subject.ref != "v2":
        job = begin(dispatch)
    job.commit_time = NOW
    begun = {name: dispatch.begin_phase(job, name) for name in upgrades}
    assert {name: phase.needless for name, phase in begun.items()} == {
        "upgrade": None,
        "upgrade-snapshots": None,
        "upgrade-testing": "testing publishes the packages that upgrade begins with",
        "upgrade-stable": "stable publishes the packages that upgrade begins with",
    }
    places = {name: [place for _, place in phase.downloads] for name, phase in begun.items()}
    assert places["upgrade"] == ["previous-upgrade/hello_1_all.deb"]
    assert places["upgrade-snapshots"] == ["previous-upgrade-snapshots/hello_1_all.deb"]
    assert begun["upgrade"].downloads[0][0] != begun["upgrade-snapshots"].downloads[0][0]
    request = begun["upgrade-snapshots"].request(Path("/srv/build"))
    assert request["previous"] == "/srv/build/previous-upgrade-snapshots"


def publish(owner: Database, channel: str, release: Release, content: str) -> None:
    """Have a channel publish a package of a release, built with this content."""
    digest = hashlib.sha256(content.encode()).hexdigest()
    name = ("debian-12/deb", "deb", "hello", "1", "all", "hello_1_all.deb")
    package = NewPackage(channel, *name, digest, digest, 1, release.id)
    generation = generations.prepare(owner, actor="publisher", reason="test", added=[package])
    generations.switched(owner, generation)


def test_a_trial_is_worked_on_under_its_own_conditions(dispatch: Dispatch) -> None:
    conditions = Conditions(image_digest="b" * 64, varied=True, packages={"libc6": "2.36-9"})
    new = NewTrial(
        TrialPurpose.BISECTION,
        "hello",
        COMMIT,
        COMMIT,
        RefKind.COMMIT,
        loader.to_json(RECIPE),
        "snapshots",
        [("debian-12/deb", ("build",))],
        "test",
        to_plain(conditions),
    )
    trial = trials.request(dispatch.database, new)
    job = begin(dispatch)
    job.commit_time = NOW
    run = dispatch.begin_phase(job, "build")
    asked = from_plain(request.PhaseRequest, run.request(Path("/work")), what="the request")
    assert (asked.commit, asked.kind, asked.conditions) == (COMMIT, RefKind.COMMIT, conditions)
    run.record([events.Version(NOW, "1.0"), events.PhaseFinished(NOW, Outcome.FAILED, "no", 2.0, 1.0)])
    run.close()
    dispatch.finish(job)
    ended = trials.get(dispatch.database, trial)
    assert (ended.outcome, ended.why) == (Outcome.FAILED, "debian-12/deb: build: no")


@pytest.mark.parametrize(
    ("recipe", "varied"), [("", True), ("vary_date = true\n", True), ("vary_date = true\n", False)]
)
def test_a_build_that_is_made_again_has_another_date_where_its_recipe_says_so(
    dispatch: Dispatch, recipe: str, varied: bool
) -> None:
    loaded = loader.load(f'builder = "deb"\n{recipe}'.encode(), source="it", name="hello", url="https://example.org/x")
    new = NewTrial(
        *(TrialPurpose.BISECTION, "hello", COMMIT, COMMIT, RefKind.COMMIT, loader.to_json(loaded), "snapshots"),
        *([("debian-12/deb", ("build",))], "test", to_plain(Conditions(varied=varied))),
    )
    trials.request(dispatch.database, new)
    steps = [step.name for step in begin(dispatch).plans["build"].steps]
    assert (OTHER_DATE in steps) is (varied and bool(recipe))


def test_hosts_are_known_by_what_they_say(owner: Database, dispatch: Dispatch, release: Release) -> None:
    dispatch.host_seen("host1", "", 2)
    dispatch.host_seen("host2", "no report", 0)
    said = {"isolations": ["container"], "processors": 4, "memory_mib": 8192, "places": 3, "ready": 2, "running": 1}
    dispatch.host_seen("host3", json.dumps(said), 2)
    assert [(one.name, one.processors, one.isolations, one.free) for one in services.hosts(owner)] == [
        *(("host1", 2, (), 0), ("host2", 1, (), 0), ("host3", 4, ("container",), 2)),
    ]
    dispatch.host_seen("host3", json.dumps({**said, "running": 3}), 2)
    assert services.host(owner, "host3").free == 0


def test_a_turn_says_which_hosts_take_no_work(owner: Database, dispatch: Dispatch, release: Release) -> None:
    dispatch.host_seen("host1", "", 2)
    [due] = dispatch.turn()
    assert dispatch.closed_hosts == frozenset()
    job = dispatch.lease(due.id, "one", "host1", "")
    assert job is not None
    services.drain(owner, "host1", "anna", "")
    dispatch.wait()
    dispatch.turn()
    assert dispatch.closed_hosts == {"host1"}
    assert services.host(owner, "host1").state is HostState.DRAINING
    dispatch.spoil(job, "lost")
    dispatch.finish(job)
    dispatch.turn()
    assert services.host(owner, "host1").state is HostState.DRAINED

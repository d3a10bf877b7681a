"""Phases whose tests failed are run again: what is recorded, what the release says, and what may leave."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from database_server import DIGEST, add_product, record_tags
from recorded import publish

from cleanroom_base.settings import load
from cleanroom_db import attempts, histories, publications, releases
from cleanroom_db.connection import Database
from cleanroom_db.listen import CHANNELS, Listener
from cleanroom_db.releases import Planned, PlannedBuild
from cleanroom_db.view import release_view
from cleanroom_master.cli.releases import describe
from cleanroom_master.dispatch import Dispatch, Job, PhaseRun
from cleanroom_master.replaying import Replays
from cleanroom_recipes import events, loader
from cleanroom_recipes.codec import from_plain
from cleanroom_recipes.model import Flaky, Isolation, Network, Outcome
from cleanroom_recipes.request import PhaseRequest

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
P, F, X = Outcome.PASSED, Outcome.FAILED, Outcome.INFRASTRUCTURE
INSTALLED = "1" * 64
RECIPE = loader.load(
    b'builder = "script"\ncommands = ["make check"]\nartifacts = ["result"]\ntests = ["true"]\n',
    source="the recipe",
    name="hello",
    url="https://example.org/hello.git",
)
GATES = ("builds", "phase:build", "step:build/command-1")
Begin = Callable[..., Job]


@pytest.fixture
def dispatch(owner: Database, master: Database, tmp_path: Path) -> Iterator[Dispatch]:
    add_product(owner)
    with closing(Listener(master.url, CHANNELS)) as listener:
        yield Dispatch(load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path)}), master, listener)


@pytest.fixture
def begin(owner: Database, dispatch: Dispatch) -> Begin:
    """Leases the first attempt of a new release; the words change its recipe."""

    def begin(tag: str = "v1", **recipe: Any) -> Job:
        record_tags(owner, tag)
        stored = replace(RECIPE, **recipe)
        builds = (PlannedBuild("debian-12/script", ("build", "regress")),)
        planned = Planned(builds, loader.to_json(stored), loader.digest(stored), "testing", gates=GATES)
        assert releases.claim_next(dispatch.database, lambda *_: planned) is not None
        [due] = dispatch.turn()
        job = dispatch.lease(due.id, f"{dispatch.name}/{tag}", "worker", "")
        assert job is not None
        job.commit_time = NOW
        return job

    return begin


def told(step: str, outcome: Outcome, cases: dict[str, Outcome], content: bytes | None = None) -> list[events.Event]:
    """What a worker tells of a phase whose one step that matters ends so; one that passes makes an artifact."""
    why = None if outcome is P else f"{step} ended with status 1"
    ended = F if outcome is F else P
    made = []
    if content is not None and outcome is P:
        sha256 = hashlib.sha256(content).hexdigest()
        made = [events.Artifact(NOW, "result", len(content), sha256, "file", None, None, None)]
    return [
        events.Reset(NOW, "guest", "debian-12", DIGEST, Isolation.CONTAINER, "overlay", Network.MIRROR, 1.0),
        events.StartingState(NOW, INSTALLED, 3),
        events.StepStarted(NOW, step, 0),
        events.Output(NOW, step, f"{outcome} {content!r}\n"),
        events.counted(NOW, step, tuple(events.TestCase(name, case) for name, case in cases.items())),
        events.StepFinished(NOW, step, ended, int(ended is F), 2.0, why, 7, False),
        *made,
        events.PhaseFinished(NOW, outcome, why, 5.0, 3.0),
    ]


def play(run: PhaseRun, *said: events.Event) -> Outcome:
    """What Buildbot's step does with what a worker tells."""
    run.record(said)
    if run.artifacts:
        [made] = [event for event in said if isinstance(event, events.Artifact)]
        run.incoming.mkdir(parents=True)
        output = next(event for event in said if isinstance(event, events.Output)).text
        (run.incoming / made.file).write_bytes(output.partition("b'")[2].rpartition("'")[0].encode())
        assert run.take_artifacts() is None
    return run.close()


def replayed(dispatch: Dispatch, job: Job, name: str, *runs: list[events.Event]) -> Outcome:
    """A phase runs, and its replays as often as they are asked for."""
    waiting = list(runs)
    first = dispatch.begin_phase(job, name)
    assert play(first, *waiting.pop(0)) is F
    series = Replays(dispatch, first)
    assert series.wanted
    while (run := series.following()) is not None:
        play(run, *waiting.pop(0))
    assert not waiting
    return series.close()


def passes(dispatch: Dispatch, job: Job, name: str) -> None:
    assert play(dispatch.begin_phase(job, name), *told("test-1", P, {})) is P


def shown(dispatch: Dispatch, tag: str = "v1") -> Any:
    return release_view(dispatch.database, "hello", tag)


def test_a_build_that_fails_sometimes_is_flaky_and_waits_for_approval(dispatch: Dispatch, begin: Begin) -> None:
    job = begin()
    cases = {"coin": F, "sure": P, "never": Outcome.SKIPPED}
    runs = [
        told("command-1", F, cases),
        told("command-1", F, {"coin": F, "sure": P}),
        told("command-1", P, {"coin": P, "sure": P, "later": P}, b"second"),
        told("command-1", P, {"coin": P, "sure": P, "later": P}, b"third"),
    ]
    assert replayed(dispatch, job, "build", *runs) is Outcome.FLAKY
    # The next phases are given what the run made that passed.
    asked = from_plain(PhaseRequest, dispatch.begin_phase(job, "regress").request(Path("/w")), what="x")
    assert asked.artifacts == Path("/w/output-build-replay-2")
    passes(dispatch, job, "regress")
    dispatch.finish(job)

    view = shown(dispatch)
    why = "flaky: 2 of 4 runs failed (command-1 ended with status 1)"
    assert (view["state"], view["why"]) == ("held", f"debian-12/script: build: {why}; 0 of 3 gates hold")
    [build] = view["builds"]
    phase = build["phases"][0]
    assert [one["name"] for one in build["phases"]] == ["build", "regress"]
    assert (build["outcome"], phase["outcome"], phase["why"]) == ("flaky", "flaky", why)
    assert (phase["runs"], phase["failures"]) == (4, 2)
    assert (phase["steps"][0]["outcome"], phase["steps"][0]["exit_status"]) == ("flaky", 1)
    assert phase["tests"] == {"passed": 3, "failed": 0, "skipped": 1, "flaky": 1}
    [coin] = phase["repeated_tests"]
    assert coin == {"step": "command-1", "name": "coin", "outcome": "flaky", "runs": 4, "failures": 2}
    assert [(one["replay"], one["alone"], one["outcome"]) for one in phase["replays"]] == [
        (1, False, "failed"),
        (2, False, "passed"),
        (3, False, "passed"),
    ]
    assert all(one["steps"][0]["log"]["sha256"] for one in phase["replays"])
    [kept] = build["artifacts"]
    assert (kept["sha256"], kept["replay"]) == (hashlib.sha256(b"second").hexdigest(), 2)
    text = describe(view)
    assert "build, replay 2: passed" in text
    assert "flaky: coin, 2 of 4 runs failed" in text

    approved = releases.approve(dispatch.database, releases.find(dispatch.database, "hello", "v1").id, "anna", "known")
    assert approved.state == "passed"
    gates = {gate["gate"]: (gate["state"], gate["why"]) for gate in shown(dispatch)["gates"]}
    assert gates == {
        "builds": ("holds", f"debian-12/script was flaky (build: {why}); approved by anna"),
        "phase:build": ("holds", f"`build` was flaky on debian-12/script ({why}); approved by anna"),
        "step:build/command-1": ("holds", f"`build/command-1` was flaky on debian-12/script ({why}); approved by anna"),
    }
    [file] = publications.files(dispatch.database, approved.id)
    assert file.sha256 == hashlib.sha256(b"second").hexdigest()

    [history] = histories.history(dispatch.database, "hello", "coin")
    assert (history.pass_rate, history.flaky_rate) == (0.0, 1.0)
    assert (history.runs[0].runs, history.runs[0].failures) == (4, 2)


@pytest.mark.parametrize(("policy", "state"), [(Flaky.PASSES, "passed"), (Flaky.FAILS, "failed")])
def test_the_recipe_says_what_becomes_of_a_flaky_release(
    dispatch: Dispatch, begin: Begin, policy: Flaky, state: str
) -> None:
    job = begin(flaky=policy, replays=1)
    runs = [told("command-1", F, {"coin": F}), told("command-1", P, {"coin": P}, b"x")]
    assert replayed(dispatch, job, "build", *runs) is Outcome.FLAKY
    passes(dispatch, job, "regress")
    dispatch.finish(job)
    view = shown(dispatch)
    assert (view["state"], view["builds"][0]["outcome"]) == (state, "flaky")
    for gate in view["gates"]:
        assert "flaky" in gate["why"]
        assert "1 of 2 runs failed" in gate["why"]


def test_what_always_fails_is_real_and_says_how_often(dispatch: Dispatch, begin: Begin) -> None:
    job = begin()
    always = told("command-1", F, {"broken": F, "sure": P})
    assert replayed(dispatch, job, "build", *[always] * 4) is F
    dispatch.finish(job)
    view = shown(dispatch)
    why = "command-1 ended with status 1; failed 4 of 4 times"
    assert (view["state"], view["why"]) == ("failed", f"debian-12/script: build: {why}; 0 of 3 gates hold")
    phase = view["builds"][0]["phases"][0]
    assert (phase["outcome"], phase["runs"], phase["failures"]) == ("failed", 4, 4)
    assert phase["tests"] == {"passed": 1, "failed": 1, "skipped": 0, "flaky": 0}
    assert [one["outcome"] for one in phase["repeated_tests"]] == ["failed"]


def test_a_regression_that_was_replayed_says_both(owner: Database, dispatch: Dispatch, begin: Begin) -> None:
    job = begin()
    play(dispatch.begin_phase(job, "build"), *told("command-1", P, {"good": P}, b"x"))
    passes(dispatch, job, "regress")
    dispatch.finish(job)
    publish(owner)
    job = begin("v2", replays=1)
    assert replayed(dispatch, job, "build", *[told("command-1", F, {"good": F})] * 2) is F
    dispatch.finish(job)
    view = shown(dispatch, "v2")
    assert view["builds"][0]["outcome"] == "regressed"
    assert "build: 1 of 1 tests regressed since v1: good; failed 2 of 2 times" in view["why"]

    job = begin("v3", replays=2)
    failed = told("command-1", F, {"good": F})
    runs = [failed, failed, told("command-1", P, {"good": P}, b"y")]
    assert replayed(dispatch, job, "build", *runs) is Outcome.FLAKY
    passes(dispatch, job, "regress")
    dispatch.finish(job)
    compared = shown(dispatch, "v3")["comparison"]
    assert (compared["against"], compared["flaky"], compared["regressed"]) == ("v1", 1, 0)
    assert compared["phases"] == []


def test_trouble_of_the_surroundings_counts_for_neither(dispatch: Dispatch, begin: Begin) -> None:
    job = begin(replays=2)
    first = dispatch.begin_phase(job, "build")
    play(first, *told("command-1", F, {"coin": F}))
    series = Replays(dispatch, first)
    run = series.following()
    assert run is not None
    # Nothing says yet how the phase ended: a master that ends now has not failed the product.
    assert job.verdict()[0] is X
    run.lost("the guest was lost")
    run = series.following()
    assert run is not None
    asked = from_plain(PhaseRequest, run.request(Path("/w")), what="x")
    assert (asked.conditions.image_digest, asked.installed) == (DIGEST, INSTALLED)
    # It failed before it came to its tests.
    play(run, events.PhaseFinished(NOW, F, "apt-get ended with status 100", 5.0, 3.0))
    for outcome in (P, P):
        run = series.following()
        assert run is not None
        play(run, *told("command-1", outcome, {"coin": outcome}, b"x"))
    assert series.following() is None
    assert series.close() is Outcome.FLAKY
    phase = shown(dispatch)["builds"][0]["phases"][0]
    assert (phase["runs"], phase["failures"]) == (3, 1)
    assert [one["outcome"] for one in phase["replays"]] == ["infrastructure", "infrastructure", "passed", "passed"]
    assert phase["replays"][1]["why"] == "it says nothing of the tests: apt-get ended with status 100"


def test_replays_that_are_all_spoiled_leave_the_failure(dispatch: Dispatch, begin: Begin) -> None:
    job = begin()
    first = dispatch.begin_phase(job, "build")
    play(first, *told("command-1", F, {"coin": F}))
    series = Replays(dispatch, first)
    number = 0
    while (run := series.following()) is not None:
        number += 1
        run.lost("the image is gone")
    assert number == 3
    assert series.close() is F
    dispatch.finish(job)
    view = shown(dispatch)
    assert (view["state"], view["builds"][0]["outcome"]) == ("failed", "failed")
    assert "command-1 ended with status 1; it could not be replayed: the image is gone" in view["why"]
    assert view["builds"][0]["phases"][0]["runs"] is None


@pytest.mark.parametrize(
    ("said", "recipe"),
    [
        (told("command-1", F, {}), {}),  # it names no case that failed
        (told("collect", F, {"x": F}), {}),  # the step that failed reports no tests
        (told("command-1", F, {"x": F}), {"replays": 0}),
    ],
)
def test_what_is_not_replayed(
    dispatch: Dispatch, begin: Begin, said: list[events.Event], recipe: dict[str, int]
) -> None:
    first = dispatch.begin_phase(begin(**recipe), "build")
    play(first, *said)
    assert not Replays(dispatch, first).wanted


def test_the_failed_tests_are_run_alone_and_then_the_whole_phase(dispatch: Dispatch, begin: Begin) -> None:
    job = begin(tests=("true", "false"), replays=2)
    play(dispatch.begin_phase(job, "build"), *told("command-1", P, {}, b"x"))
    alone, whole = told("test-2", P, {"test-2": P}), told("test-2", F, {"test-1": P, "test-2": F})
    assert replayed(dispatch, job, "regress", told("test-2", F, {"test-2": F}), alone, whole) is Outcome.FLAKY
    dispatch.finish(job)
    phase = shown(dispatch)["builds"][0]["phases"][1]
    assert [one["alone"] for one in phase["replays"]] == [True, False]
    assert phase["why"] == "flaky: 2 of 3 runs failed, alone 0 of 1 (test-2 ended with status 1)"
    # The first run did not come to test-1.
    assert phase["tests"] == {"passed": 2, "failed": 0, "skipped": 0, "flaky": 1}


def test_an_attempt_that_is_taken_away_is_not_written_to(dispatch: Dispatch, begin: Begin) -> None:
    job = begin()
    first = dispatch.begin_phase(job, "build")
    play(first, *told("command-1", F, {"coin": F}))
    series = Replays(dispatch, first)
    assert series.following() is not None
    attempts.cancel(dispatch.database, releases.find(dispatch.database, "hello", "v1").id, "anna does not want it")
    with pytest.raises(attempts.LeaseLost):
        series.following()
    with pytest.raises(attempts.LeaseLost):
        series.close()
    phase = shown(dispatch)["builds"][0]["phases"][0]
    assert [one["outcome"] for one in phase["replays"]] == ["cancelled"]

"""Products that depend on each other: what is known of it, what waits for what, and trials before a release."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from database_server import COMMIT, DIGEST, Server, add_product, record_tags
from recorded import TARGET

from cleanroom_base.settings import Settings, load
from cleanroom_db import attempts, dependencies, generations, phases, publications, releases, trials
from cleanroom_db.attempts import Lease, RetryPolicy
from cleanroom_db.connection import Database
from cleanroom_db.dependencies import Graph
from cleanroom_db.generations import NewPackage
from cleanroom_db.listen import CHANNELS, Listener
from cleanroom_db.phases import NewArtifact
from cleanroom_db.releases import Planned, PlannedBuild, Release
from cleanroom_db.roles import Role
from cleanroom_db.states import DependencyOrigin, ReleaseState, TrialPurpose
from cleanroom_db.trials import NewTrial, Trial
from cleanroom_db.view import release_view
from cleanroom_master import cli
from cleanroom_master.dependents import choose_due, demanding
from cleanroom_master.dispatch import Dispatch
from cleanroom_master.planning import Planner
from cleanroom_master.replays import Replay
from cleanroom_recipes import loader
from cleanroom_recipes.model import Outcome, RefKind

P, F, SPOILED = Outcome.PASSED, Outcome.FAILED, Outcome.INFRASTRUCTURE
ONCE = RetryPolicy(limit=1)
PHASES = ("build", "regress")
SHA256 = "c" * 64


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path), "CLEANROOM_MASTER_DEPENDENTS": "2"})


@pytest.fixture
def planner(settings: Settings) -> Planner:
    return Planner(settings)


def claim(database: Database, product: str, tag: str, recipe: str = "", limit: int = 2) -> Release:
    """A release of a new tag, as the master claims it."""
    record_tags(database, tag, product=product)
    text = f'builder = "deb"\n{recipe}'.encode()
    read = loader.load(text, source="the recipe", name=product, url="file:///x")
    planned = Planned((PlannedBuild(TARGET, PHASES),), loader.to_json(read), loader.digest(read), "testing")
    release = releases.claim_next(database, demanding(lambda *_: planned, database, limit))
    assert release is not None
    return release


def run(database: Database, work: attempts.Work, **outcomes: Outcome) -> None:
    """An attempt is worked on: its phases end so, or pass."""
    held = Lease(work.id, "master/1")
    assert attempts.lease(database, held.attempt_id, held.owner, 60)
    ended = [outcomes.get(name, P) for name in work.phases]
    for position, (name, outcome) in enumerate(zip(work.phases, ended, strict=True)):
        row = phases.start(database, held, position, name)
        phases.finish(database, held, row, outcome, why="" if outcome is P else "no", seconds=1, command_seconds=1)
        if outcome is Outcome.FLAKY:
            again = phases.start(database, held, position, name, replay=1)
            phases.finish(database, held, again, F, why="at times", seconds=1, command_seconds=1)
    if "build" in work.phases:
        file = NewArtifact(f"x{work.id}_1_all.deb", SHA256, 1, "deb", "x", "1", "all")
        phases.add_artifacts(database, held, "build", [file])
    worst = next((outcome for outcome in (SPOILED, F, Outcome.FLAKY) if outcome in ended), P)
    attempts.finish(database, held.attempt_id, held.owner, worst, "regress: no" if worst is F else "", ONCE)


def build(database: Database, release: Release, **outcomes: Outcome) -> Release:
    """The build of a release runs."""
    [work] = [one for one in attempts.due(database) if one.release_id == release.id]
    run(database, work, **outcomes)
    return releases.get(database, release.id)


def publish(owner: Database, *packages: str) -> None:
    """What waits leaves, with packages of these names."""
    waiting = publications.pending(owner)
    added = [
        NewPackage(
            "testing",
            TARGET,
            "deb",
            name,
            one.ref,
            "all",
            f"{name}_{one.ref}_all.deb",
            SHA256,
            SHA256,
            1,
            one.release_id,
        )
        for one in waiting
        for name in packages or (f"lib{one.product}",)
    ]
    prepared = generations.prepare(
        owner, actor="test", reason="test", added=added, publications=[one.id for one in waiting]
    )
    generations.switched(owner, prepared)


@pytest.fixture
def family(owner: Database) -> None:
    """`a` is published; `b`, `c` and `d` depend on it, and `d` on `c` as well; all are published."""
    for name, recipe in (
        ("a", ""),
        ("b", 'depends = ["a"]\n'),
        ("c", 'depends = ["a"]\n'),
        ("d", 'depends = ["a", "c"]\nrebuild_with_dependencies = true\n'),
    ):
        add_product(owner, name)
        build(owner, claim(owner, name, "v1", recipe, limit=0))
        publish(owner)


def tried(database: Database, subject: Release) -> dict[str, Trial]:
    found = trials.list_latest(database, purpose=TrialPurpose.DEPENDENT, subject=subject.id)
    return {trial.product: trial for trial in reversed(found)}


def candidate(owner: Database, master: Database, planner: Planner, settings: Settings, tag: str = "v2") -> Release:
    """A further release of `a`, built, with its dependents chosen."""
    release = build(master, claim(owner, "a", tag))
    assert release.state is ReleaseState.BUILDING
    choose_due(master, planner, settings)
    return releases.get(master, release.id)


# -- what is known -------------------------------------------------------------------------------------------------


def test_each_comes_after_what_it_depends_on_and_circles_are_told() -> None:
    graph = Graph.of([("b", "a"), ("c", "b"), ("c", "a"), ("x", "y"), ("y", "z"), ("z", "x"), ("w", "x")])
    places = {name: index for index, name in enumerate(graph.order)}
    assert places["a"] < places["b"] < places["c"]
    assert places["x"] < places["w"]
    assert graph.cycles == (("x", "y", "z"),)
    assert graph.cycle("y") == ("x", "y", "z")
    assert graph.cycle("w") == ()
    assert graph.dependents("a") == ["b", "c"]
    assert ("w", "x") in graph.ordered_pairs()
    # Whatever is left of a circle goes with the order.
    assert all(places[other] < places[name] for name, other in graph.ordered_pairs())


def test_two_circles_with_a_product_in_common_are_both_told() -> None:
    graph = Graph.of([("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")])
    assert len(graph.cycles) == 2
    assert sorted(graph.order) == ["a", "b", "c"]


def test_what_a_build_used_and_a_package_names_makes_it_depend(owner: Database, master: Database) -> None:
    for name in ("a", "b"):
        add_product(owner, name)
    needs = [
        (DependencyOrigin.BUILD, "liba-dev"),
        (DependencyOrigin.PACKAGE, "liba"),
        (DependencyOrigin.BUILD, "libc6"),
    ]
    dependencies.record(master, "b", TARGET, needs)
    assert dependencies.list_all(master) == []
    build(master, claim(owner, "a", "v1"))
    publish(owner, "liba", "liba-dev")
    found = {one.origin: (one.product, one.depends_on, one.packages) for one in dependencies.list_all(master)}
    assert found == {
        DependencyOrigin.BUILD: ("b", "a", ("liba-dev",)),
        DependencyOrigin.PACKAGE: ("b", "a", ("liba",)),
    }
    # The next build used less, and another image has packages of its own.
    dependencies.record(master, "b", TARGET, [])
    dependencies.record(master, "b", "debian-13/deb", needs)
    assert dependencies.list_all(master) == []


def test_a_recipe_that_says_it_no_more_makes_it_depend_no_more(owner: Database, family: None) -> None:
    assert {one.depends_on for one in dependencies.list_all(owner) if one.product == "d"} == {"a", "c"}
    claim(owner, "d", "v2", 'depends = ["c"]\n')
    assert {one.depends_on for one in dependencies.list_all(owner) if one.product == "d"} == {"c"}


# -- the gate ------------------------------------------------------------------------------------------------------


def test_only_what_others_depend_on_is_tried_with_them(owner: Database, family: None) -> None:
    assert "dependents" in claim(owner, "a", "v2").gates
    assert "dependents" not in claim(owner, "b", "v2").gates
    assert "dependents" not in claim(owner, "c", "v2", limit=0).gates


def test_dependents_are_tried_before_a_release_goes_out(
    owner: Database, master: Database, planner: Planner, settings: Settings, family: None
) -> None:
    release = candidate(owner, master, planner, settings)
    found = tried(master, release)
    # There is room for two: `c`, which has a dependent itself, and the first of the others.
    assert list(found) == ["b", "c"]
    assert found["c"].ref == "v1"
    assert release_view(master, "a", "v2")["why"] == (
        "built; waits for dependents: b, c (0 of 2 done); 1 of 2 gates hold"
    )
    works = attempts.due(master)
    assert [work.phases for work in works] == [("regress",), ("regress",)]
    run(master, works[0])
    assert releases.get(master, release.id).state is ReleaseState.BUILDING
    run(master, works[1])
    assert releases.get(master, release.id).state is ReleaseState.PASSED
    [gate] = [gate for gate in release_view(master, "a", "v2")["gates"] if gate["gate"] == "dependents"]
    assert gate["why"] == "2 dependents pass with a v2; 1 was left out"


def test_the_most_depended_upon_come_first(
    owner: Database, master: Database, planner: Planner, settings: Settings, family: None
) -> None:
    narrow = replace(settings, values={**settings.values, "master.dependents": 1})
    release = candidate(owner, master, planner, narrow)
    assert list(tried(master, release)) == ["c"]


def test_one_that_fails_holds_the_release_and_is_named(
    owner: Database, master: Database, planner: Planner, settings: Settings, family: None
) -> None:
    release = candidate(owner, master, planner, settings)
    first, second = attempts.due(master)
    run(master, first)
    run(master, second, regress=F)
    held = releases.get(master, release.id)
    assert held.state is ReleaseState.HELD
    assert held.why == (f"held: `regress` of c v1 failed on {TARGET} (no) with a v2; 1 was left out; 1 of 2 gates hold")
    assert publications.pending(owner) == []


def test_one_that_failed_before_is_no_fault_of_the_release(
    owner: Database, master: Database, planner: Planner, settings: Settings, family: None
) -> None:
    old = releases.find(owner, "c", "v1")
    nightly = NewTrial(
        TrialPurpose.NIGHTLY, "c", "v1", COMMIT, RefKind.TAG, old.recipe, "testing", [(TARGET, ("regress",))], "t", {}
    )
    trials.request(master, nightly)
    run(master, attempts.due(master)[0], regress=F)
    release = candidate(owner, master, planner, settings)
    first, second = attempts.due(master)
    run(master, first)
    run(master, second, regress=F)
    assert releases.get(master, release.id).state is ReleaseState.PASSED
    [gate] = [gate for gate in release_view(master, "a", "v2")["gates"] if gate["gate"] == "dependents"]
    assert gate["why"] == "2 dependents pass with a v2, or fail as before: c; 1 was left out"


def test_one_that_fails_at_times_is_no_fault_of_the_release_and_is_told(
    owner: Database, master: Database, planner: Planner, settings: Settings, family: None
) -> None:
    release = candidate(owner, master, planner, settings)
    first, second = attempts.due(master)
    run(master, first)
    run(master, second, regress=Outcome.FLAKY)
    assert releases.get(master, release.id).state is ReleaseState.PASSED
    [gate] = [gate for gate in release_view(master, "a", "v2")["gates"] if gate["gate"] == "dependents"]
    assert gate["why"] == "2 dependents pass with a v2; flaky: c; 1 was left out"


def test_what_the_infrastructure_spoiled_is_said_to_be_that(
    owner: Database, master: Database, planner: Planner, settings: Settings, family: None
) -> None:
    release = candidate(owner, master, planner, settings)
    for work in attempts.due(master):
        run(master, work, regress=SPOILED)
    held = releases.get(master, release.id)
    assert held.state is ReleaseState.HELD
    assert held.why.startswith("held: could not try b, c with a v2: the infrastructure failed")
    # A person has them tried again.
    releases.retry(owner, release.id, "anna")
    choose_due(master, planner, settings)
    for work in attempts.due(master):
        run(master, work)
    assert releases.get(master, release.id).state is ReleaseState.PASSED


def test_one_that_wishes_so_is_built_anew(
    owner: Database, master: Database, planner: Planner, settings: Settings, family: None
) -> None:
    release = build(master, claim(owner, "c", "v2"))
    choose_due(master, planner, settings)
    assert list(tried(master, release)) == ["d"]
    assert attempts.due(master)[0].phases == ("build", "regress")


def test_a_release_that_is_built_again_is_tried_again(
    owner: Database, master: Database, planner: Planner, settings: Settings, family: None
) -> None:
    release = candidate(owner, master, planner, settings)
    for work in attempts.due(master):
        run(master, work, regress=F)
    releases.retry(owner, release.id, "anna")
    assert releases.get(master, release.id).state is ReleaseState.BUILDING
    choose_due(master, planner, settings)
    assert len(trials.list_latest(master, subject=release.id)) == 4
    for work in attempts.due(master):
        run(master, work)
    assert releases.get(master, release.id).state is ReleaseState.PASSED


def test_a_trial_is_given_the_published_artifacts_and_the_candidates(
    owner: Database, master: Database, planner: Planner, settings: Settings, family: None
) -> None:
    candidate(owner, master, planner, settings)
    with closing(Listener(master.url, CHANNELS)) as listener:
        dispatch = Dispatch(settings, master, listener)
        [due, *_] = dispatch.turn()
        job = dispatch.lease(due.id, "master/1", "worker", "http://localhost/")
        assert job is not None
        phase = dispatch.begin_phase(job, "regress")
        replay = dispatch.begin_replay(job, phase.plan, Replay(1, False, DIGEST, None), keeps=False)
    # A replay is sent nothing again, and has the same before it.
    assert replay.downloads == []
    assert {"artifacts", "candidates"} < set(replay.directories)
    given = [destination for _, destination in phase.downloads]
    assert [place.partition("/")[0] for place in given] == ["artifacts", "candidates"]
    assert {"artifacts", "candidates"} < set(phase.directories)


# -- the order and the limits --------------------------------------------------------------------------------------


def test_a_release_waits_for_those_on_which_it_depends(owner: Database, master: Database, family: None) -> None:
    first, second = claim(owner, "c", "v2", limit=0), claim(owner, "d", "v2", 'depends = ["a", "c"]\n')
    assert [work.release_id for work in attempts.due(master)] == [first.id]
    assert release_view(master, "d", "v2")["why"] == "waits for c v2, on which it depends"
    assert build(master, first).state is ReleaseState.PASSED
    assert attempts.due(master) == []
    publish(owner)
    assert [work.release_id for work in attempts.due(master)] == [second.id]


def test_it_waits_no_longer_once_that_failed(owner: Database, master: Database, family: None) -> None:
    first, second = claim(owner, "c", "v2", limit=0), claim(owner, "d", "v2", 'depends = ["a", "c"]\n')
    build(master, first, regress=F)
    assert [work.release_id for work in attempts.due(master)] == [second.id]


def test_those_of_a_circle_do_not_wait_for_each_other_for_ever(owner: Database, master: Database) -> None:
    for name in ("x", "y"):
        add_product(owner, name)
    claim(owner, "x", "v1", 'depends = ["y"]\n')
    claim(owner, "y", "v1", 'depends = ["x"]\n')
    claim(owner, "x", "v2", 'depends = ["y"]\n')
    for _ in range(3):
        run(master, attempts.due(master)[0])
        publish(owner)
    assert attempts.due(master) == []


def test_trials_do_not_flood_the_farm(
    owner: Database, master: Database, planner: Planner, settings: Settings, family: None
) -> None:
    candidate(owner, master, planner, settings)
    claim(owner, "b", "v2")
    assert [work.trial_id is None for work in attempts.due(master, trials=1)] == [True, False]
    trial = next(work for work in attempts.due(master, trials=1) if work.trial_id)
    assert attempts.lease(master, trial.id, "master/1", 60)
    assert [work.trial_id is None for work in attempts.due(master, trials=1)] == [True]
    assert len(attempts.due(master, trials=2)) == 2
    assert len(attempts.due(master)) == 2


def test_a_campaign_of_200_products_shows_what_waits_for_what(
    server: Server, name: str, owner: Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten libraries, one after the other, and 190 products that each depend on one; two of all in a circle."""
    names = [f"p{number:03}" for number in range(200)]
    depends = {name: [names[index - 1]] for index, name in enumerate(names) if 0 < index < 10}
    depends |= {name: [names[index % 10]] for index, name in enumerate(names) if index >= 10}
    depends["p198"], depends["p199"] = ["p199"], ["p198"]
    for product in names:
        add_product(owner, product)
        with owner.transaction() as cursor:
            dependencies.declare(cursor, {product: depends.get(product, [])})
        record_tags(owner, "v1", product=product)
    plan = demanding(
        lambda _, product: Planned(
            (PlannedBuild(TARGET, PHASES),), {"depends": depends.get(product.name, [])}, "d", "testing"
        ),
        owner,
        2,
    )
    assert len(releases.claim_batch(owner, plan, limit=500).releases) == 200
    monkeypatch.setenv("CLEANROOM_DATABASE_URL", server.url(Role.OWNER, name))
    assert cli.run(["queue", "--format", "json"]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert list(shown) == ["queue", "cycles", "disk"]
    assert list(shown["queue"][0]) == [
        *("position", "kind", "purpose", "product", "ref", "channel", "state", "why", "created_at"),
        *("waits_for", "subject", "left_seconds"),
    ]
    assert shown["cycles"] == [["p198", "p199"]]
    queue = {one["product"]: one for one in shown["queue"]}
    assert len(queue) == 200
    assert queue["p000"]["waits_for"] == []
    assert queue["p005"]["waits_for"] == ["p004 v1"]
    assert queue["p017"]["waits_for"] == ["p007 v1"]
    places = {product: one["position"] for product, one in queue.items()}
    assert all(places[other] < places[one] for one, others in depends.items() for other in others if one < "p198")
    # One of the circle begins, and then its other.
    assert sorted(len(queue[one]["waits_for"]) for one in ("p198", "p199")) == [0, 1]
    assert {work.release_id for work in attempts.due(owner)} == {
        releases.find(owner, one["product"], "v1").id for one in queue.values() if not one["waits_for"]
    }
    assert cli.run(["queue"]) == 0
    told = capsys.readouterr().out
    assert "in a circle: p198 -> p199 -> p198" in told
    assert cli.run(["product", "list", "--format", "json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert listed["p000"]["dependents"][0] == "p001"
    assert listed["p005"]["depends_on"] == [{"product": "p004", "origin": "recipe", "packages": []}]
    assert listed["p198"]["cycle"] == ["p198", "p199"]

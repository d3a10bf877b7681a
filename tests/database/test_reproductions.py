"""Releases are built again and compared: what is begun, what is recorded, what the gate says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from database_server import DIGEST, add_product, record_tags

from cleanroom_base.settings import load
from cleanroom_db import attempts, phases, releases, trials
from cleanroom_db.attempts import Lease, RetryPolicy
from cleanroom_db.connection import Database
from cleanroom_db.listen import CHANNELS, Listener
from cleanroom_db.phases import NewArtifact, Reset, StepResult
from cleanroom_db.releases import Planned, PlannedBuild
from cleanroom_db.states import TrialPurpose
from cleanroom_db.view import release_view
from cleanroom_master.cli.releases import describe
from cleanroom_master.dispatch import Dispatch
from cleanroom_recipes import loader
from cleanroom_recipes.codec import from_plain
from cleanroom_recipes.conditions import Conditions
from cleanroom_recipes.model import Outcome

TARGET = "debian-12/deb"
TOLD = "f" * 64
Files = dict[str, str]


@pytest.fixture
def dispatch(owner: Database, master: Database, tmp_path: Path) -> Iterator[Dispatch]:
    add_product(owner)
    with closing(Listener(master.url, CHANNELS)) as listener:
        yield Dispatch(load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path)}), master, listener)


def claim(owner: Database, *gates: str, recipe: str = "") -> int:
    """A release with one build; returns its id."""
    record_tags(owner, "v1")
    content = f'builder = "deb"\n{recipe}'.encode()
    stored = loader.load(content, source="x", name="hello", url="https://example.org/hello.git")
    planned = Planned(
        (PlannedBuild(TARGET, ("build", "install")),),
        loader.to_json(stored),
        loader.digest(stored),
        "testing",
        gates=("builds", *gates),
    )
    release = releases.claim_next(owner, lambda *_: planned)
    assert release is not None
    return release.id


def work(database: Database, files: Files, outcome: Outcome = Outcome.PASSED, *, report: bool = False) -> int:
    """The next attempt that is due makes files, given by the first letter of their digest."""
    [due] = attempts.due(database)
    held = Lease(due.id, "master/1")
    assert attempts.lease(database, due.id, held.owner, 60)
    build = phases.start(database, held, 0, "build")
    phases.reset(database, held, build, Reset("debian-12", DIGEST, "container", "mirror", "overlay", 1.0))
    kinds = {"buildinfo": "buildinfo", "changes": "changes"}
    made = [NewArtifact(name, letter * 64, 1, kinds.get(name.split(".")[-1], "deb")) for name, letter in files.items()]
    phases.add_artifacts(database, held, "build", made)
    phases.finish(database, held, build, outcome, seconds=1.0, command_seconds=1.0)
    if report:
        compare = phases.start(database, held, 1, "compare")
        step = phases.start_step(database, held, compare, 0, "diffoscope")
        phases.finish_step(database, held, step, StepResult(Outcome.PASSED, 0, 1.0, log_sha256=TOLD, log_size=9))
    why = "" if outcome is Outcome.PASSED else "build: it ended with status 2"
    attempts.finish(database, due.id, held.owner, outcome, why, RetryPolicy(limit=1))
    return due.id


def shown(database: Database) -> Any:
    return release_view(database, "hello", "v1")


FIRST = {"a.deb": "a", "b.deb": "b", "x.buildinfo": "c", "x.changes": "d"}


def test_a_release_that_is_the_same_again_leaves(owner: Database, dispatch: Dispatch) -> None:
    database = dispatch.database
    release = claim(owner, "reproducible")
    attempt = work(database, FIRST)
    view = shown(database)
    assert (view["state"], view["why"]) == (
        "building",
        f"built; {TARGET} is built again in other circumstances; 1 of 2 gates hold",
    )
    assert view["builds"][0]["reproduction"]["outcome"] is None
    [trial] = trials.list_latest(database, subject=release)
    assert (trial.purpose, trial.ref, trial.channel) == (TrialPurpose.REPRODUCTION, "v1", "testing")
    conditions = from_plain(Conditions, dict(trial.conditions), what="x")
    assert conditions == Conditions(image_digest=DIGEST, varied=True)
    [due] = attempts.due(database)
    assert (due.target, due.phases, due.priority) == (TARGET, ("build", "compare"), 1)

    work(database, {**FIRST, "x.buildinfo": "0", "x.changes": "1"})
    view = shown(database)
    assert view["state"] == "passed", view["why"]
    [gate] = [gate for gate in view["gates"] if gate["gate"] == "reproducible"]
    assert (gate["state"], gate["why"]) == ("holds", f"2 artifacts of {TARGET} can be reproduced")
    found = view["builds"][0]["reproduction"]
    assert [(one["file"], one["same"]) for one in found["artifacts"]] == [("a.deb", True), ("b.deb", True)]
    assert found["compared_at"] is not None
    assert "built again: a.deb: the same" in describe(view)
    # It is asked for once.
    assert attempts.due(database) == []
    assert attempts.get(database, attempt).outcome is Outcome.PASSED


def test_what_differs_is_held_and_named(owner: Database, dispatch: Dispatch) -> None:
    database = dispatch.database
    claim(owner, "reproducible")
    work(database, FIRST)
    work(database, {"a.deb": "a", "b.deb": "0", "new.deb": "1"}, report=True)
    view = shown(database)
    assert view["state"] == "held"
    assert f"built again on {TARGET}, 2 of 3 artifacts, b.deb first, came out otherwise" in view["why"]
    found = view["builds"][0]["reproduction"]
    assert {one["file"]: one["same"] for one in found["artifacts"]} == {"a.deb": True, "b.deb": False, "new.deb": False}
    assert found["artifacts"][2]["sha256"] is None
    assert found["report"] == TOLD
    text = describe(view)
    assert "built again: b.deb: different" in text
    assert TOLD in text


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.INFRASTRUCTURE])
def test_what_cannot_be_built_again_is_held(owner: Database, dispatch: Dispatch, outcome: Outcome) -> None:
    database = dispatch.database
    claim(owner, "reproducible")
    work(database, FIRST)
    work(database, {}, outcome)
    view = shown(database)
    assert view["state"] == "held"
    assert f"{TARGET} could not be built again in other circumstances" in view["why"]
    assert "it ended with status 2" in view["why"]


def test_it_is_recorded_without_a_gate_where_the_recipe_wishes(owner: Database, dispatch: Dispatch) -> None:
    database = dispatch.database
    claim(owner, recipe="reproducible = true\n")
    work(database, FIRST)
    assert shown(database)["state"] == "passed"
    [due] = attempts.due(database)
    assert due.priority == 2
    work(database, {**FIRST, "b.deb": "0"})
    view = shown(database)
    assert view["state"] == "passed"
    assert [one["same"] for one in view["builds"][0]["reproduction"]["artifacts"]] == [True, False]


@pytest.mark.parametrize(("gates", "outcome"), [((), Outcome.PASSED), (("reproducible",), Outcome.FAILED)])
def test_nothing_is_built_again_that_nobody_asked_for_or_that_failed(
    owner: Database, dispatch: Dispatch, gates: tuple[str, ...], outcome: Outcome
) -> None:
    claim(owner, *gates)
    work(dispatch.database, FIRST if outcome is Outcome.PASSED else {}, outcome)
    assert trials.list_latest(dispatch.database) == []
    assert shown(dispatch.database)["builds"][0]["reproduction"] is None


def test_the_comparison_is_given_what_differs_and_is_needless_where_nothing_does(
    owner: Database, dispatch: Dispatch
) -> None:
    database = dispatch.database
    claim(owner, "reproducible")
    work(database, FIRST)
    [due] = dispatch.turn()
    job = dispatch.lease(due.id, f"{dispatch.name}/1", "worker", "")
    assert job is not None
    assert job.phases == ("build", "compare")
    files = [NewArtifact("a.deb", "a" * 64, 1, "deb"), NewArtifact("b.deb", "0" * 64, 1, "deb")]
    build = phases.start(database, job.lease, 0, "build")
    phases.add_artifacts(database, job.lease, "build", files)
    phases.finish(database, job.lease, build, Outcome.PASSED, seconds=1.0, command_seconds=1.0)
    comparison = dispatch.begin_phase(job, "compare")
    assert comparison.downloads == [(dispatch.files.path("b" * 64), "previous-compare/b.deb")]
    assert comparison.needless is None
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.artifact SET sha256 = repeat('b', 64) WHERE sha256 = repeat('0', 64)")
    assert dispatch.begin_phase(job, "compare").needless == "every artifact has the same bytes as before"

"""Releases are installed together with what their channel has: what is chosen, what is sent, what the gate says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from database_server import add_product, record_tags
from tiny_packages import NOTHING, make_deb, sha256

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import load
from cleanroom_db import attempts, generations, phases, publications, releases, trials
from cleanroom_db.attempts import Lease, RetryPolicy
from cleanroom_db.connection import Database
from cleanroom_db.generations import NewPackage
from cleanroom_db.listen import CHANNELS, Listener
from cleanroom_db.phases import NewArtifact, StepResult
from cleanroom_db.releases import Planned, PlannedBuild, Release
from cleanroom_db.states import ReleaseState, TrialPurpose
from cleanroom_db.trials import Trial
from cleanroom_db.view import release_view
from cleanroom_master.cli.releases import describe
from cleanroom_master.conflicts import check
from cleanroom_master.conflicts.check import Checker
from cleanroom_master.conflicts.trying import Trying
from cleanroom_master.dispatch import Dispatch
from cleanroom_recipes import loader
from cleanroom_recipes.model import Outcome

TARGET = "debian-12/deb"
P, F, SPOILED = Outcome.PASSED, Outcome.FAILED, Outcome.INFRASTRUCTURE
BUILDING, HELD, PASSED = ReleaseState.BUILDING, ReleaseState.HELD, ReleaseState.PASSED
LOG = "f" * 64


class Yard:
    """Products whose packages meet in one channel, and the master that tries them."""

    def __init__(self, owner: Database, dispatch: Dispatch, home: Path) -> None:
        self.owner, self.master, self.dispatch, self.home = owner, dispatch.database, dispatch, home
        self.checker = Checker(self.master, [dispatch.files])
        for product in ("alpha", "beta", "gamma"):
            add_product(owner, product)

    def built(self, product: str, version: str, *gates: str, control: str = "", recipe: str = "") -> Release:
        """A release of one package, whose build passed."""
        record_tags(self.owner, f"v{version}", product=product)
        text = f'builder = "deb"\n{recipe}'.encode()
        read = loader.load(text, source="x", name=product, url="https://example.org/x.git")
        build = PlannedBuild(TARGET, ("build",))
        planned = Planned((build,), loader.to_json(read), "digest", "testing", gates=("builds", *gates))
        release = releases.claim_next(self.owner, lambda *_: planned)
        assert release is not None
        [work] = [one for one in attempts.due(self.master) if one.release_id == release.id]
        self._build(work.id, product, version, control)
        return self.now(release)

    def _build(self, attempt: int, product: str, version: str, control: str) -> None:
        held = Lease(attempt, "master/1")
        assert attempts.lease(self.master, attempt, held.owner, 60)
        directory = self.home / f"{product}-{version}"
        directory.mkdir(parents=True)
        file = make_deb(directory, product, version, more_control=control, files=NOTHING)
        digest, size = sha256(file), file.stat().st_size
        self.dispatch.files.take(file, digest)
        row = phases.start(self.master, held, 0, "build")
        made = NewArtifact(file.name, digest, size, "deb", product, version, "amd64")
        phases.add_artifacts(self.master, held, "build", [made])
        phases.finish(self.master, held, row, P, seconds=1, command_seconds=1)
        attempts.finish(self.master, attempt, held.owner, P, "", RetryPolicy(limit=1))

    def publish(self) -> None:
        """What waits leaves."""
        waiting = publications.pending(self.owner)
        added = [
            NewPackage(
                *("testing", TARGET, "deb", one.file.split("_")[0], one.file.split("_")[1], "amd64"),
                *(one.file, one.sha256, one.sha256, 1, publication.release_id),
            )
            for publication in waiting
            for one in publications.files(self.owner, publication.release_id)
        ]
        prepared = generations.prepare(
            self.owner, actor="test", reason="test", added=added, publications=[one.id for one in waiting]
        )
        generations.switched(self.owner, prepared)

    def choose(self) -> None:
        """What the master does between builds, with nothing that an earlier turn put off."""
        Trying(self.master, self.checker).turn()

    def trials(self, release: Release) -> list[Trial]:
        found = trials.list_latest(self.master, purpose=TrialPurpose.UNION, subject=release.id)
        return found[::-1]

    def tried(self, outcome: Outcome = P, why: str = "", *, limit: int = 1) -> list[str]:
        """The oldest trial that is due is worked on; returns what it was sent."""
        due = next(one for one in attempts.due(self.master) if one.trial_id is not None)
        job = self.dispatch.lease(due.id, "master/1", "worker", "http://localhost/")
        assert job is not None
        phase = self.dispatch.begin_phase(job, "install")
        step = phases.start_step(self.master, job.lease, phase.row, 0, "install")
        phases.finish_step(self.master, job.lease, step, StepResult(outcome, 1, 1.0, log_sha256=LOG, log_size=1))
        phases.finish(self.master, job.lease, phase.row, outcome, why=why, seconds=1, command_seconds=1)
        told = f"install: {why}" if why else ""
        attempts.finish(self.master, due.id, job.lease.owner, outcome, told, RetryPolicy(limit=limit, pause=0.0))
        return sorted(destination for _, destination in phase.downloads)

    def now(self, release: Release) -> Release:
        return releases.get(self.owner, release.id)

    def gate(self, release: Release) -> tuple[str, str]:
        view = release_view(self.owner, release.product, release.ref)
        [gate] = [one for one in view["gates"] if one["gate"] == "union"]
        return gate["state"], gate["why"]

    def waive(self, release: Release) -> Release:
        later = datetime.now(UTC) + timedelta(days=1)
        return releases.waive(self.owner, release.id, "anna", "union", reason="known", expires_at=later)


@pytest.fixture
def yard(owner: Database, master: Database, tmp_path: Path) -> Iterator[Yard]:
    settings = load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path)})
    with closing(Listener(master.url, CHANNELS)) as listener:
        yield Yard(owner, Dispatch(settings, master, listener), tmp_path / "packages")


def files(**versions: str) -> list[str]:
    return [f"artifacts/{name}_{version}_amd64.deb" for name, version in versions.items()]


# -- what is tried, and what is sent ---------------------------------------------------------------------------------


def test_a_release_goes_out_once_a_guest_installed_it_with_all_that_is_there(yard: Yard) -> None:
    yard.built("alpha", "1.0")
    yard.publish()
    yard.built("gamma", "1.0")
    # A recipe without the phase is installed with others all the same.
    release = yard.built("beta", "1.0", "union", recipe="[phases.install]\nenabled = false\n")
    assert (release.state, release.why) == (
        BUILDING,
        "built; waits for the choice of what it is installed together with; 1 of 2 gates hold",
    )

    [due] = yard.dispatch.turn()
    assert (due.product, due.ref, due.builder) == ("beta", "v1.0", f"beta {TARGET}")
    assert yard.now(release).why == (
        f"built; waits to be installed together with what testing has on {TARGET}; 1 of 2 gates hold"
    )
    # What waits beside it is named before what is published.
    assert "together with gamma, alpha: not yet" in describe(release_view(yard.owner, "beta", "v1.0"))
    job = yard.dispatch.lease(due.id, "master/1", "worker", "http://localhost/")
    assert job is not None
    job.commit_time = datetime.now(UTC)
    phase = yard.dispatch.begin_phase(job, "install")
    assert sorted(name for _, name in phase.downloads) == files(alpha="1.0", beta="1.0", gamma="1.0")
    assert {sha256(file) for file, _ in phase.downloads} == {file.name for file, _ in phase.downloads}
    request = phase.request(Path("/build"))
    assert (request["artifacts"], request["source"]) == ("/build/artifacts", None)
    assert {"artifacts", phase.output} == set(phase.directories)
    assert "install" in [step["name"] for step in request["phase"]["steps"]]

    phase.skip("as if it had passed")
    yard.dispatch.finish(job)
    assert yard.now(release).state is PASSED
    told = f"installed together with what testing has: 3 packages on {TARGET}"
    assert yard.gate(release) == ("holds", told)
    # It is tried once.
    assert yard.dispatch.turn() == []
    assert [(one.channel, one.recipe["name"]) for one in yard.trials(release)] == [("testing", "beta")]


def test_of_two_that_come_at_the_same_time_the_later_one_meets_the_other(yard: Yard) -> None:
    yard.built("gamma", "1.0")
    yard.publish()
    yard.built("alpha", "1.0", "union")
    yard.built("beta", "1.0", "union")
    yard.choose()
    assert yard.tried() == files(alpha="1.0", gamma="1.0")
    assert yard.tried() == files(alpha="1.0", beta="1.0", gamma="1.0")


def test_a_release_alone_is_installed_with_nothing_and_leaves(yard: Yard) -> None:
    # An earlier version of its own is replaced by it, and is no company.
    yard.built("alpha", "1.0")
    yard.publish()
    release = yard.built("alpha", "2.0", "union")
    yard.choose()
    assert yard.trials(release) == []
    assert yard.now(release).state is PASSED
    assert yard.gate(release) == ("holds", "there is nothing in testing to install it together with")


def test_what_excludes_it_is_left_out_and_said(yard: Yard) -> None:
    yard.built("gamma", "1.0", control="Conflicts: beta\n")
    yard.built("alpha", "1.0")
    yard.publish()
    release = yard.built("beta", "1.0", "union")
    yard.choose()
    assert yard.tried() == files(alpha="1.0", beta="1.0")
    assert yard.gate(release)[1].endswith(f"2 packages on {TARGET}; left out: gamma")


def test_nothing_is_tried_that_nobody_asked_for(yard: Yard) -> None:
    yard.built("gamma", "1.0")
    yard.publish()
    release = yard.built("beta", "1.0")
    yard.choose()
    assert (yard.now(release).state, yard.trials(release)) == (PASSED, [])


# -- what becomes of it ----------------------------------------------------------------------------------------------


@pytest.fixture
def failed(yard: Yard) -> Release:
    """A release of `beta` that could not be installed together with `alpha` and `gamma`."""
    yard.built("alpha", "1.0")
    yard.built("gamma", "1.0")
    yard.publish()
    release = yard.built("beta", "1.0", "union")
    yard.choose()
    yard.tried(F, "step install ended with status 100: dpkg: no way")
    return release


def test_one_that_fails_holds_the_release_and_names_the_packages(yard: Yard, failed: Release) -> None:
    told = (
        f"beta cannot be installed together with alpha, gamma on {TARGET}"
        " (install: step install ended with status 100: dpkg: no way)"
    )
    assert yard.gate(failed) == ("fails", told)
    assert (yard.now(failed).state, yard.now(failed).why) == (HELD, f"held: {told}; 1 of 2 gates hold")
    assert publications.pending(yard.owner) == []
    assert f"why it failed is told in the log {LOG}" in describe(release_view(yard.owner, "beta", "v1.0"))
    # That nothing changed is no reason to try again.
    yard.choose()
    assert len(yard.trials(failed)) == 1


def test_it_is_tried_again_once_one_of_the_others_has_gone(yard: Yard, failed: Release) -> None:
    add_product(yard.owner, "delta")
    yard.built("delta", "1.0")
    yard.publish()
    # What came besides cannot mend it.
    yard.choose()
    assert (yard.now(failed).state, len(yard.trials(failed))) == (HELD, 1)
    yard.built("alpha", "2.0")
    yard.publish()
    yard.choose()
    assert yard.now(failed).state is BUILDING
    assert yard.tried() == files(alpha="2.0", beta="1.0", delta="1.0", gamma="1.0")
    assert yard.now(failed).state is PASSED


def test_who_is_held_by_a_person_is_not_tried_again(yard: Yard, failed: Release) -> None:
    releases.hold(yard.owner, failed.id, "anna", "not today")
    yard.built("alpha", "2.0")
    yard.publish()
    yard.choose()
    assert (yard.now(failed).state, len(yard.trials(failed))) == (HELD, 1)


def test_a_waiver_lets_it_out(yard: Yard, failed: Release) -> None:
    assert yard.waive(failed).state is PASSED
    state, why = yard.gate(failed)
    assert state == "waived"
    assert "waived by anna" in why


def test_what_is_waived_before_is_not_tried(yard: Yard) -> None:
    yard.built("gamma", "1.0")
    yard.publish()
    release = yard.built("beta", "1.0", "union")
    assert yard.waive(release).state is PASSED
    yard.choose()
    assert yard.trials(release) == []


def test_a_waiver_while_it_is_tried_lets_it_out_whatever_the_trial_says(yard: Yard) -> None:
    yard.built("gamma", "1.0")
    yard.publish()
    release = yard.built("beta", "1.0", "union")
    yard.choose()
    assert yard.waive(release).state is PASSED
    yard.tried(F, "no")
    assert yard.now(release).state is PASSED


def test_what_the_infrastructure_spoils_is_tried_again_with_the_same(yard: Yard) -> None:
    yard.built("gamma", "1.0")
    yard.publish()
    release = yard.built("beta", "1.0", "union")
    yard.choose()
    sent = yard.tried(SPOILED, "no guest", limit=2)
    assert yard.now(release).state is BUILDING
    yard.built("alpha", "1.0")
    assert yard.tried() == sent == files(beta="1.0", gamma="1.0")
    assert yard.now(release).state is PASSED


def test_what_the_infrastructure_always_spoils_is_held_as_that_until_somebody_tries_again(yard: Yard) -> None:
    yard.built("gamma", "1.0")
    yard.publish()
    release = yard.built("beta", "1.0", "union")
    yard.choose()
    yard.tried(SPOILED, "no guest")
    assert yard.now(release).state is HELD
    told = f"could not be installed together with others, for no fault of its own ({TARGET}: install: no guest)"
    assert yard.gate(release) == ("fails", told)
    releases.retry(yard.owner, release.id, "anna")
    yard.choose()
    yard.tried()
    assert yard.now(release).state is PASSED


def test_a_solver_that_is_away_makes_it_wait_and_say_so(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.built("gamma", "1.0")
    yard.publish()
    release = yard.built("beta", "1.0", "union")
    python = check.PYTHON
    monkeypatch.setattr(check, "PYTHON", "/bin/false")
    yard.choose()
    assert yard.now(release).state is BUILDING
    assert "what it is installed together with cannot be told yet: the solver gave no answer" in yard.now(release).why
    monkeypatch.setattr(check, "PYTHON", python)
    yard.choose()
    yard.tried()
    assert yard.now(release).state is PASSED


def test_a_file_that_is_gone_is_the_surroundings_fault(yard: Yard) -> None:
    yard.built("gamma", "1.0")
    yard.publish()
    yard.built("beta", "1.0", "union")
    yard.choose()
    [due] = yard.dispatch.turn()
    job = yard.dispatch.lease(due.id, "master/1", "worker", "http://localhost/")
    assert job is not None
    for file in yard.dispatch.artifacts(job):
        file[0].unlink()
    with pytest.raises(InfrastructureError, match="is gone"):
        yard.dispatch.begin_phase(job, "install")

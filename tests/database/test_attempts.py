"""Attempts: leases, fencing, what infrastructure spoils."""

from __future__ import annotations

import pytest
from database_server import DIGEST, POLICY, add_product, begin, claim, end

from cleanroom_base.errors import InputError
from cleanroom_db import attempts, phases, releases
from cleanroom_db.attempts import Lease, LeaseLost, RetryPolicy
from cleanroom_db.connection import ConstraintViolated, Database
from cleanroom_db.phases import NewArtifact, Reset, StepResult, TestResult
from cleanroom_db.releases import Release
from cleanroom_db.states import ReleaseState
from cleanroom_db.view import release_view
from cleanroom_recipes.model import Outcome


@pytest.fixture
def release(owner: Database) -> Release:
    add_product(owner)
    return claim(owner, "v1")


def _let_time_pass(owner: Database) -> None:
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.attempt SET lease_expires_at = now() - interval '1 second'")


def test_only_one_gets_the_lease(master: Database, release: Release) -> None:
    work = attempts.due(master)[0]
    assert attempts.lease(master, work.id, "first", 60)
    assert not attempts.lease(master, work.id, "second", 60)
    assert attempts.lease(master, work.id, "first", 60)  # it asks again after an answer that got lost
    assert attempts.due(master) == []
    assert releases.get(master, release.id).state is ReleaseState.BUILDING


def test_a_lease_is_renewed_by_its_owner_only(master: Database, release: Release) -> None:
    held = begin(master, release)
    assert attempts.renew(master, held.attempt_id, held.owner, 60)
    assert not attempts.renew(master, held.attempt_id, "other", 60)
    end(master, held)
    assert not attempts.renew(master, held.attempt_id, held.owner, 60)


def test_what_infrastructure_spoils_is_tried_again_with_a_growing_pause(
    owner: Database, master: Database, release: Release
) -> None:
    policy = RetryPolicy(limit=3, pause=1000.0)
    pauses = []
    for _ in range(2):
        held = begin(master, release)
        attempts.finish(master, held.attempt_id, held.owner, Outcome.INFRASTRUCTURE, "the guest was lost", policy)
        assert attempts.due(master) == []
        with owner.transaction() as cursor:
            pauses.append(
                cursor.value(
                    "SELECT round(extract(epoch FROM not_before - queued_at)) FROM cleanroom.attempt"
                    " WHERE finished_at IS NULL"
                )
            )
            cursor.execute("UPDATE cleanroom.attempt SET not_before = now()")
    assert pauses == [1000, 2000]
    held = begin(master, release)
    attempts.finish(master, held.attempt_id, held.owner, Outcome.INFRASTRUCTURE, "the guest was lost", policy)
    judged = releases.get(master, release.id)
    assert (judged.state, judged.why) == (ReleaseState.HELD, "debian-12/deb: the guest was lost")
    assert attempts.due(master) == []


def test_a_retry_by_hand_begins_a_new_series(master: Database, release: Release) -> None:
    for _ in range(3):
        end(master, begin(master, release), Outcome.INFRASTRUCTURE, "lost")
    releases.retry(master, release.id, "anna")
    end(master, begin(master, release), Outcome.INFRASTRUCTURE, "lost")
    work = attempts.due(master)[0]
    assert (work.number, work.series_start) == (5, 4)


def test_a_product_that_fails_is_not_tried_again(master: Database, release: Release) -> None:
    end(master, begin(master, release), Outcome.FAILED, "no")
    assert attempts.due(master) == []
    assert releases.get(master, release.id).state is ReleaseState.FAILED


def _guest_went_off(database: Database, release: Release, phase: str) -> None:
    """An attempt whose guest goes off in the first step of a phase."""
    held = begin(database, release)
    row = phases.start(database, held, 0, phase)
    step = phases.start_step(database, held, row, 0, "make")
    phases.finish_step(database, held, step, StepResult(Outcome.INFRASTRUCTURE, None, 1.0, "it went off"))
    spoiled = Outcome.INFRASTRUCTURE
    phases.finish(
        database, held, row, spoiled, why="it went off", seconds=1.0, command_seconds=1.0, guest_went_off=True
    )
    end(database, held, spoiled, f"{phase}: it went off")


def _outcomes(owner: Database) -> list[tuple[str, str]]:
    with owner.transaction() as cursor:
        rows = cursor.rows(
            "SELECT phase.outcome, step.outcome AS step FROM cleanroom.phase JOIN cleanroom.step ON phase_id = phase.id"
            " ORDER BY phase.id"
        )
    return [(row["outcome"], row["step"]) for row in rows]


def test_a_guest_that_went_off_once_is_tried_again(owner: Database, master: Database, release: Release) -> None:
    _guest_went_off(master, release, "build")
    assert releases.get(master, release.id).state is ReleaseState.BUILDING
    assert [work.number for work in attempts.due(master)] == [2]
    assert _outcomes(owner) == [("infrastructure", "infrastructure")]


@pytest.mark.parametrize("between", [(), ("lost",)], ids=["at once", "after something else"])
def test_a_guest_that_goes_off_twice_in_a_phase_is_the_products_failure(
    owner: Database, master: Database, release: Release, between: tuple[str, ...]
) -> None:
    _guest_went_off(master, release, "build")
    for why in between:
        end(master, begin(master, release), Outcome.INFRASTRUCTURE, why)
    _guest_went_off(master, release, "build")
    judged = releases.get(master, release.id)
    why = "build: the guest went off, as it did in attempt 1: the product switches it off"
    assert (judged.state, judged.why) == (ReleaseState.FAILED, f"debian-12/deb: {why}")
    assert attempts.due(master) == []
    # The page shows what failed.
    assert _outcomes(owner) == [("infrastructure", "infrastructure"), ("failed", "failed")]


def test_guests_that_go_off_in_different_phases_may_have_been_lost(master: Database, release: Release) -> None:
    for phase in ("build", "install", "upgrade"):
        _guest_went_off(master, release, phase)
    assert releases.get(master, release.id).state is ReleaseState.HELD


def test_a_guest_that_goes_off_after_one_was_lost_is_tried_again(master: Database, release: Release) -> None:
    held = begin(master, release)
    row = phases.start(master, held, 0, "build")
    phases.finish(master, held, row, Outcome.INFRASTRUCTURE, why="lost", seconds=1.0, command_seconds=1.0)
    end(master, held, Outcome.INFRASTRUCTURE, "build: lost")
    _guest_went_off(master, release, "build")
    assert [work.number for work in attempts.due(master)] == [3]


def test_a_guest_that_is_lost_after_one_went_off_is_no_failure(master: Database, release: Release) -> None:
    _guest_went_off(master, release, "build")
    for _ in range(2):
        held = begin(master, release)
        row = phases.start(master, held, 0, "build")
        phases.finish(master, held, row, Outcome.INFRASTRUCTURE, why="lost", seconds=1.0, command_seconds=1.0)
        end(master, held, Outcome.INFRASTRUCTURE, "build: lost")
    assert releases.get(master, release.id).state is ReleaseState.HELD


def test_an_attempt_that_falls_silent_is_taken_away(owner: Database, master: Database, release: Release) -> None:
    held = begin(master, release)
    phase = phases.start(master, held, 0, "build")
    phases.start_step(master, held, phase, 0, "compile")
    assert attempts.expire(master, POLICY) == []
    _let_time_pass(owner)
    assert attempts.expire(master, POLICY) == [held.attempt_id]
    assert [work.number for work in attempts.due(master)] == [2]
    assert releases.get(master, release.id).state is ReleaseState.BUILDING
    with owner.transaction() as cursor:
        rows = cursor.rows("SELECT outcome FROM cleanroom.phase UNION ALL SELECT outcome FROM cleanroom.step")
    assert [row["outcome"] for row in rows] == ["infrastructure", "infrastructure"]


def test_a_lease_that_was_renewed_in_time_does_not_expire(owner: Database, release: Release) -> None:
    held = begin(owner, release)
    _let_time_pass(owner)
    assert attempts.renew(owner, held.attempt_id, held.owner, 60)
    assert attempts.expire(owner, POLICY) == []


def test_a_process_that_starts_again_gives_up_what_it_held(master: Database, release: Release) -> None:
    held = begin(master, release, name="host_1/7")
    assert attempts.abandon(master, "hostX1/", "the worker was started again", POLICY) == []
    assert attempts.abandon(master, "host_1/", "the worker was started again", POLICY) == [held.attempt_id]
    assert [work.number for work in attempts.due(master)] == [2]


def test_nothing_is_written_without_the_lease(owner: Database, master: Database, release: Release) -> None:
    held = begin(master, release)
    phase = phases.start(master, held, 0, "build")
    step = phases.start_step(master, held, phase, 0, "compile")
    _let_time_pass(owner)
    attempts.expire(master, POLICY)
    reset = Reset("debian-12", "sha256:x", "container", "mirror", "overlay", 1.0)
    for write in (
        lambda: phases.start(master, held, 1, "install"),
        lambda: phases.reset(master, held, phase, reset),
        lambda: phases.finish(master, held, phase, Outcome.PASSED, seconds=1, command_seconds=1),
        lambda: phases.start_step(master, held, phase, 1, "test"),
        lambda: phases.finish_step(master, held, step, StepResult(Outcome.PASSED, 0, 1.0)),
        lambda: phases.add_tests(master, held, phase, "test", [TestResult("one", Outcome.PASSED)]),
        lambda: phases.add_artifacts(master, held, "build", [NewArtifact("a.deb", DIGEST, 1, "deb")]),
        lambda: attempts.describe(master, held, worker="w"),
        lambda: end(master, held),
    ):
        with pytest.raises(LeaseLost):
            write()
    with owner.transaction() as cursor:
        counts = cursor.row(
            "SELECT (SELECT count(*) FROM cleanroom.phase) AS phases, (SELECT count(*) FROM cleanroom.step) AS steps,"
            " (SELECT count(*) FROM cleanroom.test_case) AS tests, (SELECT count(*) FROM cleanroom.artifact) AS files"
        )
    assert counts == {"phases": 1, "steps": 1, "tests": 0, "files": 0}


def test_another_attempt_s_phase_cannot_be_written(owner: Database, master: Database, release: Release) -> None:
    held = begin(master, release)
    phase = phases.start(master, held, 0, "build")
    other = begin(master, claim(owner, "v2"), name="other")
    for write in (
        lambda: phases.finish(master, other, phase, Outcome.PASSED, seconds=1, command_seconds=1),
        lambda: phases.start_step(master, other, phase, 0, "compile"),
    ):
        with pytest.raises(LeaseLost):
            write()


def test_saying_something_twice_is_no_harm(master: Database, release: Release) -> None:
    held = begin(master, release)
    assert phases.start(master, held, 0, "build") == (phase := phases.start(master, held, 0, "build"))
    assert phases.start_step(master, held, phase, 0, "unpack") == phases.start_step(master, held, phase, 0, "unpack")
    file = NewArtifact("a.deb", DIGEST, 1, "deb")
    phases.add_artifacts(master, held, "build", [file])
    phases.add_artifacts(master, held, "build", [file])
    assert len(phases.artifacts(master, held.attempt_id)) == 1


@pytest.mark.parametrize("file", ["../a.deb", "/etc/passwd", ".hidden", "-rf", "a\nb", "a/b", "", "a" * 256])
def test_an_artifact_s_name_is_one_harmless_component(master: Database, release: Release, file: str) -> None:
    held = begin(master, release)
    with pytest.raises(ConstraintViolated):
        phases.add_artifacts(master, held, "build", [NewArtifact(file, DIGEST, 1, "deb")])


def test_a_cancelled_release_ends_all_attempts(master: Database, release: Release) -> None:
    held = begin(master, release)
    assert attempts.cancel(master, release.id, "not wanted") == [held.attempt_id]
    assert releases.get(master, release.id).state is ReleaseState.CANCELLED
    with pytest.raises(LeaseLost):
        end(master, held)


def test_unknown_attempts_are_input_errors(master: Database) -> None:
    with pytest.raises(InputError):
        attempts.get(master, 4711)
    with pytest.raises(InputError):
        attempts.lease(master, 4711, "me", 1)


def test_the_view_shows_everything_and_why(owner: Database, master: Database, release: Release) -> None:
    assert release_view(master, "hello", "v1")["why"] == "debian-12/deb: waits for a worker"
    held = begin(master, release)
    attempts.describe(master, held, worker="host1", buildbot_url="http://localhost/1")
    phase = phases.start(master, held, 0, "build")
    assert release_view(master, "hello", "v1")["why"] == "debian-12/deb: in phase build: getting a clean guest"
    phases.reset(master, held, phase, Reset("debian-12", "sha256:x", "container", "mirror", "overlay", 0.5))
    step = phases.start_step(master, held, phase, 0, "compile")
    assert release_view(master, "hello", "v1")["why"] == "debian-12/deb: in phase build: compile"
    phases.finish_step(master, held, step, StepResult(Outcome.PASSED, 0, 2.5, log_sha256=DIGEST, log_size=7))
    results = [TestResult("a\x00\ud800", Outcome.PASSED, 0.1), TestResult("b", Outcome.FAILED, message="no\x00")]
    phases.add_tests(master, held, phase, "compile", results)
    phases.finish(master, held, phase, Outcome.PASSED, seconds=3.0, command_seconds=2.5)
    phases.add_artifacts(master, held, "build", [NewArtifact("hello_1_amd64.deb", DIGEST, 12, "deb", "hello", "1")])
    end(master, held)
    view = release_view(master, "hello", "v1")
    assert (view["state"], view["why"]) == ("passed", "passed; waits for publication into testing")
    build = view["builds"][0]
    assert {key: build[key] for key in ("target", "attempt", "outcome", "isolation", "image", "worker")} == {
        "target": "debian-12/deb",
        "attempt": 1,
        "outcome": "passed",
        "isolation": "container",
        "image": {"name": "debian-12", "digest": "sha256:x"},
        "worker": "host1",
    }
    shown = build["phases"][0]
    assert (shown["name"], shown["outcome"], shown["seconds"], shown["reset_seconds"]) == ("build", "passed", 3.0, 0.5)
    assert shown["tests"] == {"passed": 1, "failed": 1, "skipped": 0, "flaky": 0}
    assert shown["steps"][0]["log"] == {"sha256": DIGEST, "size": 7, "truncated": False}
    assert build["artifacts"][0]["file"] == "hello_1_amd64.deb"
    assert view["published"] == []
    with pytest.raises(InputError, match="there is no release of hello v2"):
        release_view(master, "hello", "v2")


def test_the_view_says_why_an_attempt_waits(master: Database, release: Release) -> None:
    held: Lease = begin(master, release)
    policy = RetryPolicy(limit=3, pause=1000.0)
    attempts.finish(master, held.attempt_id, held.owner, Outcome.INFRASTRUCTURE, "the guest was lost", policy)
    why = release_view(master, "hello", "v1")["why"]
    assert why.startswith("debian-12/deb: attempt 2 waits until 2")
    assert why.endswith("Z, because: the guest was lost")

"""Trials: worked on as releases are, never published, and heard by the release that waits for them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from database_server import add_product
from recorded import build, claimed

from cleanroom_base.errors import InputError
from cleanroom_db import attempts, publications, releases, trials
from cleanroom_db.attempts import Lease, RetryPolicy
from cleanroom_db.connection import Database
from cleanroom_db.states import ReleaseState, TrialPurpose
from cleanroom_db.trials import NewTrial, Trial
from cleanroom_recipes.model import Outcome, RefKind

TARGETS = ("debian-12/deb", "debian-13/deb")
NEW = NewTrial(
    TrialPurpose.REPRODUCTION,
    "hello",
    "v1",
    "a" * 40,
    RefKind.TAG,
    {"name": "hello"},
    "testing",
    [(target, ("build",)) for target in TARGETS],
    "test",
    {"varied": True},
)
ONCE = RetryPolicy(limit=1)


def end(master: Database, outcome: Outcome, why: str = "", policy: RetryPolicy = ONCE) -> attempts.Work:
    """The attempt that is due first is worked on, and ends."""
    work = attempts.due(master)[0]
    held = Lease(work.id, "master/1")
    assert attempts.lease(master, held.attempt_id, held.owner, 60)
    attempts.finish(master, held.attempt_id, held.owner, outcome, why, policy)
    return work


@pytest.fixture
def trial(owner: Database, master: Database) -> Trial:
    """A trial for a release that was built."""
    add_product(owner)
    release = claimed(owner, "v1")
    build(owner, release)
    return trials.get(master, trials.request(master, replace(NEW, subject=release.id)))


def test_it_ends_as_its_worst_build(master: Database, trial: Trial) -> None:
    assert trial.conditions == {"varied": True}
    assert [end(master, Outcome.PASSED).target, trials.get(master, trial.id).outcome] == [TARGETS[0], None]
    end(master, Outcome.FAILED, "build: no")
    ended = trials.get(master, trial.id)
    assert (ended.outcome, ended.why, ended.finished_at is None) == (Outcome.FAILED, "debian-13/deb: build: no", False)
    assert attempts.due(master) == []


def test_what_the_infrastructure_spoils_is_tried_again_with_its_priority(master: Database, trial: Trial) -> None:
    end(master, Outcome.INFRASTRUCTURE, "lost", RetryPolicy(limit=3, pause=0))
    again = next(work for work in attempts.due(master) if work.target == TARGETS[0])
    assert (again.number, again.priority, again.trial_id, again.release_id) == (2, 1, trial.id, None)
    assert trials.get(master, trial.id).outcome is None


def test_releases_come_before_trials(owner: Database, master: Database, trial: Trial) -> None:
    claimed(owner, "v2")
    assert [work.release_id is None for work in attempts.due(master)] == [False, True, True]


def test_nothing_of_a_trial_is_published_or_counts_for_its_release(
    owner: Database, master: Database, trial: Trial
) -> None:
    waiting = publications.pending(owner)
    for _ in TARGETS:
        end(master, Outcome.FAILED, "no")
    assert publications.pending(owner) == waiting
    assert trial.subject is not None
    assert releases.get(master, trial.subject).state is ReleaseState.PASSED


def test_its_builders_are_known(master: Database, trial: Trial) -> None:
    assert releases.builders(master) == [("hello", target) for target in TARGETS]


def test_it_is_listed_by_what_it_is_for(master: Database, trial: Trial) -> None:
    found = trials.list_latest(master, purpose=TrialPurpose.REPRODUCTION, product="hello", subject=trial.subject)
    assert [one.id for one in found] == [trial.id]
    assert trials.list_latest(master, purpose=TrialPurpose.NIGHTLY) == []


def test_one_without_builds_is_refused(master: Database, trial: Trial) -> None:
    with pytest.raises(InputError, match="nothing to build"):
        trials.request(master, replace(NEW, builds=()))

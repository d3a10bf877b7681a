"""Consumers install what was published: what they do, what becomes of what they cannot install, and what is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from shop import Killed, Shop
from tiny_packages import make_deb, make_rpm

from cleanroom_base.settings import load
from cleanroom_db import attempts, canaries, generations, phases, promotions, publications, releases, requests, trials
from cleanroom_db.attempts import RetryPolicy
from cleanroom_db.connection import Database
from cleanroom_db.listen import CHANNELS, GENERATION, TRIAL, Listener
from cleanroom_db.phases import StepResult
from cleanroom_db.releases import Release
from cleanroom_db.states import PublicationState, ReleaseState, RequestKind, TrialPurpose
from cleanroom_db.trials import Trial
from cleanroom_db.view import release_view
from cleanroom_master import cli
from cleanroom_master.cli.releases import describe
from cleanroom_master.dispatch import Dispatch, Job
from cleanroom_recipes import loader
from cleanroom_recipes.model import Outcome

P, F, SPOILED, SKIPPED = Outcome.PASSED, Outcome.FAILED, Outcome.INFRASTRUCTURE, Outcome.SKIPPED
WORDS = "apt-get install tiny=2.0: dpkg: error processing package tiny"
LOG = "f" * 64
POINTS = ["before build", "after build", "before switch", "after switch"]


class Street:
    """A shop, the master that sends consumers to it, and what they say."""

    def __init__(self, shop: Shop, dispatch: Dispatch, home: Path) -> None:
        self.shop, self.dispatch, self.master, self.home = shop, dispatch, dispatch.database, home
        shop.canary = True

    def publish(self, tag: str, *files: Path) -> Release:
        """A release is published; consumers see it."""
        release = self.shop.passed(tag, *files, kind=files[0].suffix[1:])
        self.give_recipes()
        assert self.shop.publisher().turn() == 1
        return release

    def give_recipes(self) -> None:
        read = loader.load(b'builder = "deb"', source="x", name="hello", url="https://example.org/x.git")
        with self.shop.owner.transaction() as cursor:
            recipe = json.dumps(loader.to_json(read))
            cursor.execute("UPDATE cleanroom.release SET recipe = %(recipe)s::jsonb", recipe=recipe)

    def turn(self) -> list[Trial]:
        """What the master does between builds; gives the trials that are there then."""
        self.dispatch.turn()
        return trials.list_latest(self.master, purpose=TrialPurpose.CANARY)[::-1]

    def job(self) -> Job:
        """Work on the canary that is due first."""
        due = next(one for one in attempts.due(self.master) if one.trial_id is not None)
        job = self.dispatch.lease(due.id, "master/1", "worker", "http://localhost/")
        assert job is not None
        return job

    def tried(self, outcome: Outcome = P, why: str = "", *, limit: int = 1) -> None:
        """A consumer comes and goes."""
        job = self.job()
        for position, name in enumerate(job.phases):
            row = phases.start(self.master, job.lease, position, name)
            for number, (step, seconds) in enumerate((("update", 90.0), ("repository", 1.0), (name, 5.0))):
                begun = phases.start_step(self.master, job.lease, row, number, step)
                failed = outcome is F and step == name
                result = StepResult(F if failed else P, 100 if failed else 0, seconds, log_sha256=LOG, log_size=1)
                phases.finish_step(self.master, job.lease, begun, result)
            phases.finish(self.master, job.lease, row, outcome, why=why, seconds=100, command_seconds=96)
        told = f"install: {why}" if why else ""
        policy = RetryPolicy(limit=limit, pause=0.0)
        attempts.finish(self.master, job.attempt, job.lease.owner, outcome, told, policy)

    def view(self, tag: str) -> dict[str, Any]:
        return release_view(self.shop.owner, "hello", tag)

    def said(self, tag: str) -> list[tuple[str, str, str]]:
        return [(one["channel"], one["state"], one["said"]) for one in self.view(tag)["canaries"]]

    def actors(self) -> list[tuple[str, str]]:
        return [(one.actor, one.reason) for one in generations.history(self.shop.owner)]


@pytest.fixture
def street(shop: Shop, master: Database, tmp_path: Path) -> Iterator[Street]:
    settings = load({"CLEANROOM_STATE": str(shop.home), "CLEANROOM_SITE": str(tmp_path)})
    with closing(Listener(master.url, CHANNELS)) as listener:
        yield Street(shop, Dispatch(settings, master, listener), tmp_path)


# -- what consumers do -----------------------------------------------------------------------------------------------


def test_the_first_publication_is_installed_and_the_next_one_also_upgraded_to(street: Street, tmp_path: Path) -> None:
    street.publish("v1", make_deb(tmp_path))
    [first] = street.turn()
    assert (first.product, first.ref, first.channel, first.subject) == ("hello", "v1", "testing", None)
    job = street.job()
    assert (job.target, job.phases) == ("debian-12/deb", ("install",))
    asked = job.plans["install"].steps[-1].environment
    assert asked == {"CLEANROOM_WANTED": "tiny 1.0 amd64", "CLEANROOM_EARLIER": ""}
    street.publish("v2", make_deb(tmp_path, version="2.0"))
    street.turn()
    job = street.job()
    assert job.phases == ("install", "upgrade")
    asked = job.plans["upgrade"].steps[-1].environment
    assert asked == {"CLEANROOM_WANTED": "tiny 2.0 amd64", "CLEANROOM_EARLIER": "tiny 1.0 amd64"}


def test_the_guest_is_told_what_the_page_says_of_what_is_published_now(street: Street, tmp_path: Path) -> None:
    street.publish("v1", make_deb(tmp_path))
    street.turn()
    job = street.job()
    repository = street.dispatch.repository(job)
    assert repository is not None and repository.page is not None
    assert repository.page.place == "/etc/apt/sources.list.d/test-testing.sources"
    assert "URIs: http://repository.example/apt" in repository.page.source


def test_every_client_of_what_was_published_has_a_consumer(street: Street, tmp_path: Path) -> None:
    street.publish("v1", make_rpm(tmp_path))
    [trial] = street.turn()
    assert street.job().target == "debian-12/rpm"
    # Nothing is begun twice, also when the master starts again.
    assert street.turn() == [trial]


def test_without_the_setting_and_for_what_nobody_installs_there_are_none(street: Street, tmp_path: Path) -> None:
    street.shop.canary = False
    street.publish("v1", make_deb(tmp_path))
    assert street.turn() == []
    assert street.view("v1")["canaries"] == []
    street.shop.canary = True
    street.shop.passed("v2", make_rpm(tmp_path, source=True), kind="source-rpm")
    assert street.shop.publisher().turn() == 1
    assert street.turn() == []


def test_a_generation_that_was_never_shown_is_installed_by_nobody(street: Street, tmp_path: Path) -> None:
    street.shop.passed("v1", make_deb(tmp_path))
    with pytest.raises(Killed):
        street.shop.publisher(street.shop.deadly("before switch")).turn()
    assert street.turn() == []
    publisher = street.shop.publisher()
    publisher.recover()
    assert publisher.turn() == 1
    assert len(street.turn()) == 1


def test_master_and_publisher_are_woken(street: Street, tmp_path: Path) -> None:
    with closing(Listener(street.master.url, [GENERATION, TRIAL])) as listener:
        assert listener.wait(10) == {GENERATION, TRIAL}
        street.publish("v1", make_deb(tmp_path))
        assert listener.wait(10) == {GENERATION}
        street.turn()
        street.tried()
        assert listener.wait(10) == {TRIAL}


# -- what becomes of what they say -----------------------------------------------------------------------------------


def test_what_a_consumer_installs_stays_and_is_told(street: Street, tmp_path: Path) -> None:
    street.publish("v1", make_deb(tmp_path))
    assert street.said("v1") == [("testing", "waits", "waits for a clean guest")]
    street.turn()
    assert street.said("v1") == [("testing", "waits", "apt on debian-12: waits for a worker")]
    street.tried()
    # What made the machine ready is not the consumer's time.
    assert street.said("v1") == [("testing", "passed", "installed by apt on debian-12 in 6 s")]
    assert street.shop.publisher().turn() == 0
    told = "canary of testing, generation 1: installed by apt on debian-12 in 6 s"
    assert told in describe(street.view("v1"))


def test_what_a_consumer_cannot_install_is_taken_out_and_held_in_the_clients_words(
    street: Street, tmp_path: Path
) -> None:
    street.publish("v1", make_deb(tmp_path))
    street.turn()
    street.tried()
    bad = street.publish("v2", make_deb(tmp_path, version="2.0"))
    street.turn()
    street.tried(F, WORDS)
    assert street.said("v2") == [
        ("testing", "leaving", f"apt on debian-12 failed: install: {WORDS}; it is being taken out")
    ]
    assert street.shop.publisher().turn() == 1
    assert street.shop.published() == [("tiny", "1.0")]
    why = f"testing: taken back by its canary: debian-12/deb: install: {WORDS}"
    assert street.shop.state(bad) == (ReleaseState.HELD, why)
    reason = f"rollback to generation 1: took hello v2 from testing out: debian-12/deb: install: {WORDS}"
    assert street.actors()[0] == ("canary", reason)
    [gone] = street.view("v2")["removed"]
    assert (gone["how"], gone["generation"]) == ("canary", 3)
    assert street.said("v2") == [("testing", "failed", f"apt on debian-12 failed: install: {WORDS}")]
    assert LOG in describe(street.view("v2"))
    # Nothing is done twice, and the generation that took it out brings nothing to install.
    assert street.shop.publisher().turn() == 0
    assert len(street.turn()) == 2


def test_what_came_meanwhile_stays(street: Street, tmp_path: Path) -> None:
    street.publish("v1", make_deb(tmp_path))
    street.publish("v2", make_deb(tmp_path, "other"))
    street.turn()
    street.tried(F, WORDS)
    assert street.shop.publisher().turn() == 1
    assert street.shop.published() == [("other", "1.0")]
    assert street.actors()[0][1].startswith("took hello v1 from testing out: ")
    street.tried()
    assert street.shop.publisher().turn() == 0


def test_of_several_in_one_generation_only_the_bad_one_goes(street: Street, tmp_path: Path) -> None:
    street.shop.passed("v1", make_deb(tmp_path))
    street.shop.passed("v2", make_deb(tmp_path, "other"))
    street.give_recipes()
    assert street.shop.settle() == 2
    assert len(street.turn()) == 2
    street.tried(F, WORDS)
    street.tried()
    assert street.shop.publisher().turn() == 1
    assert street.shop.published() == [("other", "1.0")]


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_it_is_taken_out_once(street: Street, tmp_path: Path, point: str) -> None:
    street.publish("v1", make_deb(tmp_path))
    street.publish("v2", make_deb(tmp_path, version="2.0"))
    street.turn()
    street.tried()
    street.tried(F, WORDS)
    with pytest.raises(Killed):
        street.shop.publisher(street.shop.deadly(point)).turn()
    # Until that is known, it is on its way out.
    assert street.said("v2")[0][1] == "leaving"
    publisher = street.shop.publisher()
    publisher.recover()
    assert publisher.turn() == (0 if point == "after switch" else 1)
    assert street.said("v2")[0][1] == "failed"
    assert street.shop.published() == [("tiny", "1.0")]
    assert [actor for actor, _ in street.actors()] == ["canary", "publisher", "publisher"]


def test_surroundings_that_fail_are_tried_again_and_take_nothing_out(street: Street, tmp_path: Path) -> None:
    release = street.publish("v1", make_deb(tmp_path))
    street.turn()
    street.tried(SPOILED, "the guest was lost", limit=2)
    assert street.said("v1")[0][1] == "waits"
    street.tried(SPOILED, "the mirror is down", limit=2)
    told = "apt on debian-12 could not be tried: install: the mirror is down; this is not the release's fault, and is"
    assert street.said("v1") == [("testing", "spoiled", f"{told} tried again")]
    assert street.shop.publisher().turn() == 0
    assert street.shop.state(release)[0] is ReleaseState.PUBLISHED
    # Not at once, but later, by another trial.
    assert len(street.turn()) == 1
    with street.shop.owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.trial SET finished_at = now() - interval '1 hour'")
    assert len(street.turn()) == 2
    street.tried()
    assert street.said("v1")[0][1] == "passed"


def test_what_left_meanwhile_is_taken_out_by_nobody(street: Street, tmp_path: Path) -> None:
    release = street.publish("v1", make_deb(tmp_path))
    street.turn()
    requests.ask(
        street.shop.owner,
        RequestKind.WITHDRAW,
        actor="anna",
        subject="x",
        reason="eats data",
        release_id=release.id,
    )
    assert street.shop.publisher().turn() == 1
    street.tried(F, WORDS)
    assert street.shop.publisher().turn() == 0
    assert street.shop.state(release)[0] is ReleaseState.WITHDRAWN


# -- people ----------------------------------------------------------------------------------------------------------


def failed(street: Street, tmp_path: Path) -> Release:
    release = street.publish("v1", make_deb(tmp_path))
    street.turn()
    street.tried(F, WORDS)
    assert street.shop.publisher().turn() == 1
    assert street.shop.state(release)[0] is ReleaseState.HELD
    return release


def test_a_person_lets_it_go_out_all_the_same_and_it_stays(street: Street, tmp_path: Path) -> None:
    release = failed(street, tmp_path)
    # A trial that ends only now does not let it go.
    with street.shop.owner.transaction() as cursor:
        releases.judge_again(cursor, releases.lock(cursor, release.id))
    assert street.shop.state(release)[0] is ReleaseState.HELD
    releases.approve(street.shop.owner, release.id, "anna", "the canary's machine is odd")
    assert street.shop.publisher().turn() == 1
    assert street.shop.published() == [("tiny", "1.0")]
    assert street.shop.state(release)[0] is ReleaseState.PUBLISHED
    street.turn()
    street.tried(F, WORDS)
    assert street.shop.publisher().turn() == 0
    assert street.said("v1")[-1][2].endswith("it stays, since a person had it published again")


def test_a_rollback_to_a_generation_that_has_it_brings_it_back(street: Street, tmp_path: Path) -> None:
    release = failed(street, tmp_path)
    requests.ask(street.shop.owner, RequestKind.ROLLBACK, actor="anna", subject="x", reason="was fine", target=1)
    assert street.shop.publisher().turn() == 1
    assert street.shop.state(release) == (ReleaseState.PUBLISHED, "published in testing, generation 3")
    # Who goes back decides; nobody tries it again.
    assert len(street.turn()) == 1


def test_what_fails_in_stable_stays_in_testing_and_can_be_promoted_again(street: Street, tmp_path: Path) -> None:
    release = street.publish("v1", make_deb(tmp_path))
    street.turn()
    street.tried()
    for _ in range(2):
        promotions.promote(street.shop.owner, release, "stable", [], actor="anna", reason="good")
        assert street.shop.publisher().turn() == 1
        street.turn()
        street.tried(F, WORDS)
        if _ == 0:
            assert street.shop.publisher().turn() == 1
            where, why = street.shop.state(release)
            assert where is ReleaseState.PUBLISHED
            assert why.startswith("published in testing, generation 1; stable: taken back by its canary: ")
            with street.shop.owner.transaction() as cursor:
                rows = cursor.rows("SELECT channel, state FROM cleanroom.publication ORDER BY id")
            assert [(row["channel"], row["state"]) for row in rows] == [
                ("testing", PublicationState.PUBLISHED),
                ("stable", PublicationState.REFUSED),
            ]
    assert street.shop.publisher().turn() == 0
    assert [state for _, state, _ in street.said("v1")] == ["passed", "failed", "failed"]


def test_what_cannot_be_taken_out_says_so_and_blocks_nobody(
    street: Street, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    street.publish("v1", make_deb(tmp_path))
    street.turn()
    street.tried(F, WORDS)
    canaries.give_up(street.shop.database, canaries.failed(street.shop.database)[0].place, "no client accepts that")
    assert street.shop.publisher().turn() == 0
    assert street.said("v1")[0][2].endswith("it could not be taken out: no client accepts that")


def test_people_see_it_in_the_history_and_with_what_is_published(
    street: Street, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    street.publish("v1", make_deb(tmp_path))
    street.turn()
    street.tried()
    monkeypatch.setenv("CLEANROOM_DATABASE_URL", street.shop.owner.url)
    monkeypatch.setenv("CLEANROOM_STATE", str(tmp_path))
    for verb in ("show", "history"):
        assert cli.run(["repository", verb, "--format", "json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        [one] = answer["canaries"] if verb == "show" else answer[0]["canaries"]
        assert (one["product"], one["ref"], one["state"]) == ("hello", "v1", "passed")
        assert cli.run(["repository", verb]) == 0
        assert ("installed by apt on debian-12 in 6 s" if verb == "show" else "passed") in capsys.readouterr().out


def test_a_release_that_a_canary_holds_can_be_withdrawn(street: Street, tmp_path: Path) -> None:
    release = failed(street, tmp_path)
    requests.ask(
        street.shop.owner, RequestKind.WITHDRAW, actor="anna", subject="x", reason="broken", release_id=release.id
    )
    assert street.shop.publisher().turn() == 1
    assert street.shop.state(release) == (ReleaseState.WITHDRAWN, "withdrawn by anna: broken")
    assert publications.pending(street.shop.owner) == []

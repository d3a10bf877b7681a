"""The claim: every event once, whoever claims and whatever happens to them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable

import pytest
from database_server import COMMIT, Server, add_product, begin, claim, end, plan, plan_for, record_tags

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_db import attempts, audit, publications, ref_events, releases
from cleanroom_db.connection import Database
from cleanroom_db.products import Product
from cleanroom_db.ref_events import NewRef, RefDetails, RefEvent
from cleanroom_db.releases import Planned
from cleanroom_db.roles import Role
from cleanroom_db.states import RefChange, RefEventState, ReleaseState, SignatureState
from cleanroom_db.view import release_view
from cleanroom_recipes.model import Outcome, RefKind


@pytest.fixture(autouse=True)
def hello(owner: Database) -> None:
    add_product(owner)


def test_an_event_becomes_a_release_with_builds_and_attempts(owner: Database, master: Database) -> None:
    record_tags(owner, "v1")
    release = releases.claim_next(master, plan_for("debian-12/deb", "debian-13/deb"))
    assert release is not None
    assert (release.product, release.ref, release.commit, release.kind) == ("hello", "v1", COMMIT, RefKind.TAG)
    assert (release.state, release.channel, release.recipe) == (ReleaseState.WAITING, "testing", {"name": "hello"})
    due = attempts.due(master)
    assert [(work.target, work.number, work.phases) for work in due] == [
        ("debian-12/deb", 1, ("build", "install")),
        ("debian-13/deb", 1, ("build", "install")),
    ]
    event = ref_events.get(master, release.ref_event_id)
    assert event.state is RefEventState.CLAIMED
    assert event.settled_at is not None
    assert releases.claim_next(master, plan) is None


def test_two_claimers_share_100_events(owner: Database, connect: Callable[[Role], Database]) -> None:
    record_tags(owner, *(f"v{number}" for number in range(100)))
    claimed: list[list[str]] = [[], []]

    def work(mine: list[str]) -> None:
        database = connect(Role.MASTER)
        while release := releases.claim_next(database, plan):
            mine.append(release.ref)

    threads = [threading.Thread(target=work, args=[mine]) for mine in claimed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    both = claimed[0] + claimed[1]
    assert len(both) == len(set(both)) == 100
    assert len(attempts.due(owner, limit=1000)) == 100


def test_a_claimer_that_is_killed_in_the_middle_loses_nothing(
    owner: Database, master: Database, server: Server, name: str
) -> None:
    record_tags(owner, "v1")
    context = multiprocessing.get_context("spawn")
    planning = context.Event()
    process = context.Process(target=_claim_and_hang, args=[server.url(Role.MASTER, name), planning])
    process.start()
    assert planning.wait(60)
    assert releases.claim_next(master, plan) is None  # the other one holds it
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    release = None
    for _ in range(200):  # the server notices the death when it next touches the socket
        if release := releases.claim_next(master, plan):
            break
        threading.Event().wait(0.05)
    assert release is not None
    assert len(releases.list_latest(master)) == 1


def _claim_and_hang(url: str, planning: threading.Event) -> None:
    def hang(event: RefEvent, product: Product) -> Planned:
        planning.set()
        signal.pause()
        raise AssertionError

    releases.claim_next(Database(url), hang)


@pytest.mark.parametrize("change", [RefChange.MOVED, RefChange.DELETED])
def test_a_moved_or_deleted_tag_is_never_a_release(owner: Database, master: Database, change: RefChange) -> None:
    details = RefDetails("b" * 40) if change is RefChange.MOVED else None
    new = NewRef("v1", details, change=change, previous_commit=COMMIT)
    ref_events.record_many(owner, "hello", [new], recorded_by="test")
    assert releases.claim_next(master, plan) is None
    if change is RefChange.MOVED:
        event = ref_events.list_latest(owner)[0]
        assert (event.state, event.why) == (RefEventState.IGNORED, "the ref was moved: a release is never replaced")


def test_a_released_ref_is_not_released_again(owner: Database, master: Database) -> None:
    first = claim(owner, "v1")
    record_tags(owner, "v1", commit="b" * 40)
    assert releases.claim_next(master, plan) is None
    event = ref_events.list_latest(owner)[0]
    assert (event.state, event.why) == (
        RefEventState.IGNORED,
        "the ref was released before: a release is never replaced",
    )
    assert releases.find(owner, "hello", "v1") == first


def test_a_plan_that_is_refused_refuses_the_event_and_others_go_on(owner: Database, master: Database) -> None:
    record_tags(owner, "v1", "v2")

    def choosy(event: RefEvent, product: Product) -> Planned:
        if event.ref == "v1":
            raise InputError("no recipe for v1")
        return plan(event, product)

    claimed = releases.claim_batch(master, choosy, limit=10)
    assert (claimed.events, [release.ref for release in claimed.releases]) == (2, ["v2"])
    event = ref_events.list_latest(owner)[1]
    assert (event.state, event.why) == (RefEventState.REFUSED, "no recipe for v1")


def test_a_plan_that_meets_a_fault_makes_the_event_wait_and_holds_up_no_other(
    owner: Database, master: Database
) -> None:
    record_tags(owner, "v1", "v2")

    def stumbling(event: RefEvent, product: Product) -> Planned:
        if event.ref == "v1":
            raise InfrastructureError("the mirror is away")
        return plan(event, product)

    assert releases.claim_next(master, stumbling) == releases.find(owner, "hello", "v2")
    assert releases.claim_next(master, plan) is None  # not yet
    event = ref_events.list_latest(owner)[1]
    assert (event.state, event.why) == (RefEventState.RECORDED, "the mirror is away")
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.ref_event SET not_before = now()")
    release = releases.claim_next(master, plan)
    assert release is not None
    assert release.ref == "v1"


@pytest.mark.parametrize("ref", ["v1;reboot", "$(reboot)", "v1|x", "ünïcode", "v 1", "'v1'"])
def test_a_hostile_name_inserted_by_hand_is_refused(owner: Database, master: Database, ref: str) -> None:
    with owner.transaction() as cursor:
        cursor.execute(
            "INSERT INTO cleanroom.ref_event (product, ref, commit) VALUES ('hello', %(ref)s, %(commit)s)",
            ref=ref,
            commit=COMMIT,
        )
    assert releases.claim_next(master, plan) is None
    event = ref_events.list_latest(owner)[0]
    assert (event.ref, event.state) == (ref, RefEventState.REFUSED)
    assert "characters other than" in event.why


def test_a_required_signature_must_be_good(owner: Database, master: Database) -> None:
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.product SET signature_policy = 'required'")
    refs = [
        NewRef(str(state), RefDetails(COMMIT, signature=state)) for state in (SignatureState.BAD, SignatureState.GOOD)
    ]
    ref_events.record_many(owner, "hello", refs, recorded_by="test")
    claimed = releases.claim_batch(master, plan, limit=10)
    assert [release.ref for release in claimed.releases] == ["good"]
    assert ref_events.list_latest(owner)[1].why == "a good signature is required, this one is: bad"


def test_an_event_of_a_removed_product_is_ignored(owner: Database, master: Database) -> None:
    record_tags(owner, "v1")
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.product SET removed_at = now()")
    assert releases.claim_next(master, plan) is None
    assert ref_events.list_latest(owner)[0].why == "the product was removed"


def test_a_claim_of_many_waiting_events_uses_the_index(owner: Database, master: Database) -> None:
    record_tags(owner, *(f"v{number}" for number in range(10_000)))
    with owner.transaction() as cursor:
        cursor.execute("ANALYZE cleanroom.ref_event")
        lines = cursor.rows(
            "EXPLAIN SELECT id FROM cleanroom.ref_event AS event WHERE event.state = 'recorded'"
            " AND event.commit IS NOT NULL AND event.not_before <= now() ORDER BY event.id LIMIT 100"
        )
    assert any("ref_event_claimable" in line["QUERY PLAN"] for line in lines)
    claimed = releases.claim_batch(master, plan, limit=1000)
    assert (claimed.events, len(claimed.releases)) == (1000, 1000)


def test_a_release_is_judged_when_its_last_build_ends(owner: Database) -> None:
    release = claim(owner, "v1", "debian-12/deb", "debian-13/deb")
    first = begin(owner, release)
    second = begin(owner, release)
    end(owner, first, Outcome.FAILED, "the test suite failed")
    assert releases.get(owner, release.id).state is ReleaseState.BUILDING
    end(owner, second)
    judged = releases.get(owner, release.id)
    assert (judged.state, judged.why) == (ReleaseState.FAILED, "debian-12/deb: the test suite failed")
    assert judged.finished_at is not None
    assert publications.pending(owner) == []


def test_builds_that_end_at_the_same_time_close_their_release(owner: Database, master: Database) -> None:
    targets = [f"debian-{number}/deb" for number in range(1, 9)]
    release = claim(owner, "v1", *targets)
    held = [begin(owner, release) for _ in targets]
    threads = [threading.Thread(target=end, args=[master, one]) for one in held]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert releases.get(owner, release.id).state is ReleaseState.PASSED
    assert [(one.product, one.channel) for one in publications.pending(owner)] == [("hello", "testing")]


def test_a_held_release_passes_when_it_is_approved(owner: Database) -> None:
    release = claim(owner, "v1")
    releases.hold(owner, release.id, "anna", "wait for the advisory")
    before = release_view(owner, "hello", "v1")
    assert before["why"].endswith("waits for a worker; it will be held: wait for the advisory")
    assert before["next"].endswith("its gates are judged, and it is held until a person approves it.")
    end(owner, begin(owner, release))
    held = releases.get(owner, release.id)
    assert (held.state, held.why) == (ReleaseState.HELD, "held: wait for the advisory")
    assert publications.pending(owner) == []
    # What was said later is shown beside what it is held for already.
    releases.hold(owner, release.id, "bob", "and for the holidays")
    assert release_view(owner, "hello", "v1")["why"] == "held: wait for the advisory; held: and for the holidays"
    releases.approve(owner, release.id, "anna", "advisory is out")
    assert releases.get(owner, release.id).state is ReleaseState.PASSED
    assert len(publications.pending(owner)) == 1
    assert [entry.action for entry in audit.list_latest(owner)] == ["release approve", "release hold", "release hold"]


def test_a_failed_release_cannot_be_approved(owner: Database) -> None:
    release = claim(owner, "v1")
    end(owner, begin(owner, release), Outcome.FAILED, "no")
    with pytest.raises(InputError, match="hello v1 is failed"):
        releases.approve(owner, release.id, "anna", "please")


def test_a_retry_builds_again_what_did_not_pass(owner: Database) -> None:
    release = claim(owner, "v1", "debian-12/deb", "debian-13/deb")
    end(owner, begin(owner, release), Outcome.FAILED, "no")
    end(owner, begin(owner, release))
    releases.retry(owner, release.id, "anna")
    assert [(work.target, work.number) for work in attempts.due(owner)] == [("debian-12/deb", 2)]
    assert releases.get(owner, release.id).state is ReleaseState.WAITING
    end(owner, begin(owner, release))
    assert releases.get(owner, release.id).state is ReleaseState.PASSED
    with pytest.raises(InputError, match="nothing to try again"):
        releases.retry(owner, release.id, "anna")

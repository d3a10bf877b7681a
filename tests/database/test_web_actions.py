"""What release managers do on the pages: as on the command line, with a reason, and one after another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from database_server import add_product
from fastapi import FastAPI
from people import Person, entries, join
from recorded import F, P, build, claimed, published
from starlette.testclient import TestClient
from test_web_access import by, token_of

from cleanroom_db import generations, publications, releases, requests, services
from cleanroom_db.connection import Database
from cleanroom_db.releases import Release
from cleanroom_db.states import AccountRole, HostState, PublicationState, ReleaseState, RequestKind
from cleanroom_master.permissions import ACTIONS
from cleanroom_master.web.application import create
from cleanroom_master.web.site import Site
from cleanroom_recipes import loader
from cleanroom_recipes.model import Outcome

RECIPE = loader.to_json(loader.load(b'builder = "deb"', source="x", name="hello", url="https://example.org/h.git"))


@pytest.fixture
def application(pages: Site, owner: Database) -> Iterator[FastAPI]:
    """The web status, and the product hello."""
    add_product(owner)
    made = create(pages)
    with TestClient(made):
        yield made


@pytest.fixture
def person(application: FastAPI, owner: Database) -> Callable[..., Person]:
    """Somebody who is signed in with a role."""

    def make(name: str, role: AccountRole | None, product: str | None = None) -> Person:
        join(owner, name, role, product)
        one = Person(application)
        assert one.sign_in(name).status_code == 303
        return one

    return make


Make = Callable[..., Person]


def held(owner: Database, tag: str = "v1") -> Release:
    """A release that was built well and waits for a person."""
    release = claimed(owner, tag, gates=("builds", "approval"))
    build(owner, release, {"a": P})
    return releases.get(owner, release.id)


def out(owner: Database, tag: str) -> Release:
    """A release that is published."""
    release = published(owner, tag, {"a": P})
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.release SET recipe = %(recipe)s", recipe=RECIPE)
    return release


def state(owner: Database, release: Release) -> ReleaseState:
    return releases.get(owner, release.id).state


def buttons(page: Person, release: Release) -> list[str]:
    links = page.page(f"/release/hello/{release.ref}").links()
    return [one.split("/")[2] for one in links if one.startswith("/actions/")]


def test_buttons_are_those_that_one_may_press(person: Make, application: FastAPI, owner: Database) -> None:
    add_product(owner, "other")
    waiting, gone = held(owner), out(owner, "v2")
    everyone = {
        "anonymous": (Person(application), [], []),
        "reader": (person("reader", AccountRole.READER), [], []),
        "developer": (person("developer", AccountRole.DEVELOPER, "hello"), ["hold", "retry"], []),
        "manager": (
            person("manager", AccountRole.MANAGER, "hello"),
            ["approve", "hold", "retry", "waive"],
            ["promote", "withdraw"],
        ),
        "elsewhere": (person("elsewhere", AccountRole.MANAGER, "other"), [], []),
    }
    for name, (one, of_held, of_published) in everyone.items():
        assert buttons(one, waiting) == of_held, name
        assert buttons(one, gone) == of_published, name


def test_a_manager_approves(person: Make, owner: Database) -> None:
    anna, release = person("anna", AccountRole.MANAGER, "hello"), held(owner)
    address = f"/actions/approve/{release.id}"
    answer = anna.act(address, reason="looked at it")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/release/hello/v1?done=approve")
    assert "It is approved." in anna.page(answer.headers["Location"]).text
    assert (state(owner, release), releases.get(owner, release.id).approved_by) == (ReleaseState.PASSED, "anna")
    [entry] = entries(owner, action="release approve")
    assert (entry.actor, entry.reason, entry.allowed) == ("anna", "looked at it", True)
    assert entry.written_by == "cleanroom_access"


def test_every_action_asks_for_a_reason(person: Make, owner: Database) -> None:
    anna, release = person("anna", AccountRole.MANAGER), held(owner)
    for word in ("approve", "hold", "retry", "waive", "promote", "withdraw"):
        address = f"/actions/{word}/{release.id}"
        for reason in ("", "  \n ", "x" * 2001):
            fields = {**anna.fields(f"/actions/approve/{release.id}", f"/actions/approve/{release.id}")}
            answer = anna.send(address, {**fields, "reason": reason, "expires": "2099-01-01"})
            assert answer.status_code == 400, word
            assert "Nothing was done" in answer.text
    assert state(owner, release) is ReleaseState.HELD
    assert len(entries(owner, actor="anna", allowed=False)) == 18


@pytest.mark.parametrize("word", [word for word in ACTIONS if word not in ("rollback", "drain", "resume")])
def test_the_server_refuses_who_may_not(person: Make, application: FastAPI, owner: Database, word: str) -> None:
    """Whatever the page shows, and whatever is sent."""
    add_product(owner, "other")
    release = held(owner)
    reader = person("reader", AccountRole.READER)
    elsewhere = person("elsewhere", AccountRole.ADMINISTRATOR, "other")
    address = f"/actions/{word}/{release.id}"
    for one in (reader, elsewhere):
        one.page(address, 403)
        token = one.fields("/account", "/sign-out")["token"]
        answer = one.send(address, {"token": token, "reason": "because", "expires": "2099-01-01", "channel": "stable"})
        assert answer.status_code == 403
        assert "needs the role" in answer.text
    assert Person(application).web.get(address).headers["Location"].startswith("/sign-in?next=")
    assert Person(application).send(address, {"reason": "because"}).status_code == 403
    nobody = Person(application)
    answer = nobody.send(address, {**nobody.fields("/sign-in", "/sign-in"), "reason": "because"})
    assert answer.status_code == 403
    assert state(owner, release) is ReleaseState.HELD
    refused = entries(owner, action=ACTIONS[word].name, allowed=False)
    assert [(one.actor, one.subject, one.reason) for one in refused] == [
        ("reader", "hello v1", "because"),
        ("elsewhere", "hello v1", "because"),
        ("anonymous", "hello v1", "because"),
    ]


def test_a_role_that_was_taken_counts_at_once(person: Make, owner: Database) -> None:
    from cleanroom_db import accounts

    anna, release = person("anna", AccountRole.MANAGER), held(owner)
    address = f"/actions/approve/{release.id}"
    fields = anna.fields(address, address)
    accounts.revoke(owner, "anna", AccountRole.MANAGER, None, actor="root")
    assert anna.send(address, {**fields, "reason": "quick"}).status_code == 403
    assert state(owner, release) is ReleaseState.HELD


def test_of_two_who_press_in_the_same_second_one_wins(person: Make, owner: Database) -> None:
    anna, bob = person("anna", AccountRole.MANAGER), person("bob", AccountRole.MANAGER)
    for turn in range(4):
        release = held(owner, f"v{turn}")
        ways = [(anna, f"/actions/approve/{release.id}"), (bob, f"/actions/hold/{release.id}")]
        fields = [who.fields(address, address) for who, address in ways]
        start, answers = threading.Barrier(2), {}

        def press(number: int, ways=ways, fields=fields, start=start, answers=answers) -> None:
            who, address = ways[number]
            start.wait(30)
            answers[number] = who.send(address, {**fields[number], "reason": f"reason {number}"})

        threads = [threading.Thread(target=press, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(answer.status_code for answer in answers.values()) == [303, 409]
        won = 0 if answers[0].status_code == 303 else 1
        assert state(owner, release) is (ReleaseState.PASSED, ReleaseState.HELD)[won]
        told = ("meanwhile anna approved it (reason 0)", "meanwhile bob held it (reason 1)")[won]
        assert told in answers[1 - won].text
        # What was typed is not lost, and what is seen now may be answered.
        assert f"reason {1 - won}" in answers[1 - won].text
    assert len(entries(owner, allowed=False)) == 4


def test_an_approval_is_of_what_was_seen(person: Make, owner: Database) -> None:
    anna, release = person("anna", AccountRole.MANAGER), held(owner)
    address = f"/actions/approve/{release.id}"
    fields = anna.fields(address, address)
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.release SET why = 'held: 3 tests regressed'")
    answer = anna.send(address, {**fields, "reason": "fine"})
    assert answer.status_code == 409
    assert "meanwhile it became held: held: 3 tests regressed" in answer.text
    # Holding does not depend on why it stands.
    assert anna.send(f"/actions/hold/{release.id}", {**fields, "reason": "stop"}).status_code == 303
    # Who approves it then is told.
    assert "Somebody holds it: stop" in anna.page(address).text
    for made_up in ("", "x", "9" * 30, "-1.held.0", "0.\x00.0"):
        assert anna.send(address, {**fields, "seen": made_up, "reason": "fine"}).status_code == 409


def test_a_developer_holds_and_retries(person: Make, owner: Database) -> None:
    dora = person("dora", AccountRole.DEVELOPER, "hello")
    failed = claimed(owner, "v1")
    build(owner, failed, {"a": F}, failing={"regress": "1 failed"})
    assert dora.act(f"/actions/retry/{failed.id}", reason="the disk was full").status_code == 303
    assert state(owner, failed) is ReleaseState.WAITING
    assert [one.reason for one in entries(owner, action="release retry")] == ["the disk was full"]
    assert dora.act(f"/actions/hold/{failed.id}", reason="not yet").status_code == 303
    assert releases.get(owner, failed.id).hold_reason == "not yet"
    answer = dora.act(f"/actions/retry/{failed.id}", reason="again")
    assert answer.status_code == 400
    assert "there is nothing to try again" in answer.text


def test_a_retry_forgets_what_was_found(person: Make, owner: Database) -> None:
    """Everything that a retry drops can be dropped as the web's role."""
    dora = person("dora", AccountRole.DEVELOPER)
    release = claimed(owner, "v1", gates=("builds", "no-conflicts", "dependents", "union"))
    build(owner, release, {}, outcome=Outcome.INFRASTRUCTURE)
    assert state(owner, release) is ReleaseState.HELD
    assert dora.act(f"/actions/retry/{release.id}", reason="again").status_code == 303
    assert state(owner, release) is ReleaseState.WAITING


def test_a_manager_waives_a_gate(person: Make, owner: Database) -> None:
    anna = person("anna", AccountRole.MANAGER)
    release = claimed(owner, "v1", gates=("builds", "phase:upgrade"))
    build(owner, release, {"a": P}, failing={"upgrade": "the script failed"})
    address = f"/actions/waive/{release.id}"
    assert "phase:upgrade" in anna.page(address).text
    fields = {**anna.fields(address, address), "gate": "phase:upgrade", "reason": "known"}
    for wrong in ("2000-01-01", "tomorrow", "", "9999-12-31"):
        assert anna.send(address, {**fields, "expires": wrong}).status_code == 400, wrong
    assert anna.send(address, {**fields, "gate": "builds"}).status_code == 400
    day = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    assert anna.send(address, {**fields, "expires": day}).status_code == 303
    with owner.transaction() as cursor:
        row = cursor.row("SELECT * FROM cleanroom.gate_waiver")
    assert row is not None
    assert (row["actor"], row["gate"], row["reason"]) == ("anna", "phase:upgrade", "known")


def test_a_manager_promotes(person: Make, owner: Database) -> None:
    anna, release = person("anna", AccountRole.MANAGER), out(owner, "v1")
    address = f"/actions/promote/{release.id}"
    assert anna.act(address, channel="No Channel", reason="good").status_code == 400
    assert anna.act(address, channel="stable", reason="two weeks").status_code == 303
    [asked] = publications.pending(owner)
    assert (asked.channel, asked.state) == ("stable", PublicationState.PENDING)
    [entry] = entries(owner, action="release promote", allowed=True)
    assert (entry.actor, entry.reason) == ("anna", "two weeks")


def test_gates_that_do_not_hold_are_said(person: Make, owner: Database) -> None:
    anna, release = person("anna", AccountRole.MANAGER), out(owner, "v1")
    strict = {**RECIPE, "channels": {"stable": {"gates": ["signature"]}}}
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.release SET recipe = %(recipe)s", recipe=strict)
    answer = anna.act(f"/actions/promote/{release.id}", channel="stable", reason="good")
    assert answer.status_code == 400
    assert "is not promoted to stable: signature" in answer.text
    with owner.transaction() as cursor:
        cursor.execute(
            "UPDATE cleanroom.release SET recipe = %(recipe)s", recipe={**RECIPE, "gates": ["x"], "flaky": 1}
        )
    answer = anna.act(f"/actions/promote/{release.id}", channel="stable", reason="good")
    # All that is wrong with it, each in its place.
    assert "<strong>gates[0]</strong>" in answer.text
    assert "<strong>flaky</strong>" in answer.text
    assert publications.pending(owner) == []


def test_a_manager_withdraws(person: Make, owner: Database) -> None:
    anna, release = person("anna", AccountRole.MANAGER), out(owner, "v1")
    with owner.transaction() as cursor:
        cursor.execute("INSERT INTO cleanroom.security_fix VALUES (%(id)s, 'CVE-2030-1')", id=release.id)
    address = f"/actions/withdraw/{release.id}"
    assert "CVE-2030-1" in anna.page(address).text
    assert "security fixes" in anna.act(address, reason="bad", force="").text
    answer = anna.act(address, reason="bad", force="yes")
    asked = requests.first_pending(owner)
    assert asked is not None
    assert answer.headers["Location"] == f"/requests/{asked.id}"
    assert (asked.kind, asked.actor, asked.reason, asked.forced) == (RequestKind.WITHDRAW, "anna", "bad", True)
    page = anna.page(f"/requests/{asked.id}")
    assert "It waits for the publisher" in page.text
    assert anna.page("/requests/999", 404)


def test_rolling_back_is_for_managers_of_everything(person: Make, owner: Database) -> None:
    out(owner, "v1")
    out(owner, "v2")
    anna, bob = person("anna", AccountRole.MANAGER), person("bob", AccountRole.MANAGER, "hello")
    assert "/actions/rollback/1" in anna.page("/repository").links()
    assert "/actions/rollback/1" not in bob.page("/repository").links()
    bob.page("/actions/rollback/1", 403)
    token = bob.fields("/account", "/sign-out")["token"]
    assert bob.send("/actions/rollback/1", {"token": token, "reason": "because"}).status_code == 403
    page = anna.page("/actions/rollback/1")
    assert "goes: hello v2" in page.text.replace("  ", " ")
    fields = anna.fields("/actions/rollback/1", "/actions/rollback/1")
    answer = anna.send("/actions/rollback/1", {**fields, "reason": "v2 does not start"})
    assert answer.status_code == 303
    asked = requests.first_pending(owner)
    assert asked is not None
    assert (asked.kind, asked.target, asked.actor) == (RequestKind.ROLLBACK, 1, "anna")
    # Whoever saw the page before that is told.
    answer = anna.send("/actions/rollback/1", {**fields, "reason": "again"})
    assert answer.status_code == 409
    assert "meanwhile anna asked to go back to generation 1" in answer.text
    assert [one.allowed for one in entries(owner, action="repository rollback")] == [False, True, False]
    anna.page("/actions/rollback/99", 404)


def test_a_rollback_is_of_what_was_seen(person: Make, owner: Database) -> None:
    out(owner, "v1")
    out(owner, "v2")
    anna = person("anna", AccountRole.MANAGER)
    fields = anna.fields("/actions/rollback/1", "/actions/rollback/1")
    out(owner, "v3")
    answer = anna.send("/actions/rollback/1", {**fields, "reason": "why"})
    current = generations.current(owner)
    assert current is not None
    assert answer.status_code == 409
    assert f"meanwhile generation {current.number} was published" in answer.text


def test_a_token_acts_without_a_form(application: FastAPI, owner: Database) -> None:
    release = held(owner)
    join(owner, "anna", AccountRole.MANAGER)
    reading = token_of(owner, "anna", AccountRole.DEVELOPER)
    program = Person(application)
    address = f"/actions/approve/{release.id}"
    seen = next(
        one["value"]
        for one in program.page_with(address.replace("approve", "hold"), by(reading)).all("input")
        if one.get("name") == "seen"
    )
    body = {"reason": "by a program", "seen": seen or ""}
    assert program.web.post(address, data=body, headers=by(reading)).status_code == 403
    held_by = program.web.post(address.replace("approve", "hold"), data=body, headers=by(reading))
    assert held_by.status_code == 303
    assert [one.actor for one in entries(owner, action="release hold")] == ["anna (token ci)"]


@pytest.mark.parametrize(
    ("address", "status", "told"),
    [
        ("/actions/nothing/1", 404, "there is no action 'nothing'"),
        ("/actions/hold/99", 404, "there is no release 99"),
        ("/actions/approve/0", 400, "release_id"),
        ("/actions/approve/x", 400, "release_id"),
        (f"/actions/approve/{2**63}", 400, "release_id"),
        ("/actions/rollback/99", 404, "there is no generation 99"),
    ],
)
def test_what_is_not_there_is_said(person: Make, owner: Database, address: str, status: int, told: str) -> None:
    out(owner, "v1")
    anna = person("anna", AccountRole.ADMINISTRATOR)
    assert told in anna.page(address, status).text
    token = anna.fields("/account", "/sign-out")["token"]
    answer = anna.send(address, {"token": token, "reason": "why", "seen": "0.1"})
    assert answer.status_code in (400, 404)
    assert [one for one in entries(owner, actor="anna", allowed=True) if one.action != "sign in"] == []


def test_an_administrator_drains_a_host(person: Make, owner: Database) -> None:
    services.host_seen(owner, "host-1", ("container",), 2, 4096, services.Guests(2, 1, 1))
    address = "/hosts/host-1/drain"
    admin, manager = person("root", AccountRole.ADMINISTRATOR), person("anna", AccountRole.MANAGER)
    assert address not in manager.page("/hosts").links()
    assert manager.page(address, 403)
    page = admin.page("/hosts")
    assert address in page.links()
    assert "1 of 2 free" in page.text
    answer = admin.act(address, reason="new memory")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/hosts?done=drain")
    assert services.host(owner, "host-1").state is HostState.DRAINED
    page = admin.page("/hosts?done=drain")
    assert "The host takes no new work." in page.text
    assert "1 of 2 drained" in page.text
    assert "/hosts/host-1/resume" in page.links()
    [entry] = entries(owner, action="host drain")
    assert (entry.actor, entry.subject, entry.reason, entry.allowed) == ("root", "host-1", "new memory", True)


def test_a_host_that_became_otherwise_meanwhile_is_left_alone(person: Make, owner: Database) -> None:
    services.host_seen(owner, "host1", ("container",), 2, 4096)
    admin = person("root", AccountRole.ADMINISTRATOR)
    fields = admin.fields("/hosts/host1/drain", "/hosts/host1/drain")
    services.drain(owner, "host1", "eve", "")
    answer = admin.send("/hosts/host1/drain", {**fields, "reason": "x"})
    assert answer.status_code == 409
    assert "meanwhile the host became drained" in answer.text
    assert admin.page("/hosts/nothing/drain", 404)
    assert admin.page("/hosts/host1/burn", 404)

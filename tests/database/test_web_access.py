"""The web status lets people in: passwords, sessions, tokens, forms, and what is refused."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from database_server import add_product
from fastapi import FastAPI
from people import KEPT, PASSWORD, Person, entries, join, settings_of
from recorded import P, published
from starlette.testclient import TestClient

from cleanroom_base.errors import InputError
from cleanroom_db import accounts, sessions, tokens
from cleanroom_db.accounts import Holder
from cleanroom_db.connection import Database, DatabaseRefused
from cleanroom_db.roles import Role
from cleanroom_db.sessions import Ages, TooManyAttempts
from cleanroom_db.states import AccountRole
from cleanroom_db.tokens import TokenRefused
from cleanroom_master.web.application import create
from cleanroom_master.web.site import Site
from cleanroom_master.web.visitors import Access

AGES = Ages(3600, 86400)


@pytest.fixture
def application(pages: Site) -> Iterator[FastAPI]:
    """The web status, running."""
    made = create(pages)
    with TestClient(made):
        yield made


@pytest.fixture
def closed(pages: Site, tmp_path: Path) -> Iterator[FastAPI]:
    """The web status of a site that is not shown to everybody, and to which people come by HTTPS."""
    settings = settings_of(tmp_path, CLEANROOM_WEB_ANONYMOUS="none", CLEANROOM_WEB_URL="https://web.example")
    assert pages.access is not None
    made = create(replace(pages, access=Access(pages.access.database, pages.access.part, settings)))
    with TestClient(made):
        yield made


# -- signing in and out ------------------------------------------------------------------------------------------------


def test_somebody_signs_in_and_out(application: FastAPI, owner: Database) -> None:
    join(owner, "anna", AccountRole.DEVELOPER)
    anna = Person(application)
    assert "Sign in" in anna.page("/").text
    answer = anna.sign_in("anna", then="/queue?a=b")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/queue?a=b")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "developer for all products" in anna.page("/account").text
    assert anna.web.get("/").headers["Cache-Control"] == "private, no-cache"
    secret = anna.web.cookies["cleanroom_session"]
    with owner.transaction() as cursor:
        [row] = cursor.rows("SELECT * FROM cleanroom.session")
    assert secret not in str(row)
    out = anna.send("/sign-out", anna.fields("/account", "/sign-out") | {"everywhere": ""})
    assert (out.status_code, out.headers["Location"]) == (303, "/")
    assert "Sign in" in anna.page("/").text
    # What a thief kept is worth nothing any more.
    assert sessions.find(owner, secret, AGES) is None
    assert [(one.action, one.allowed) for one in entries(owner, actor="anna")] == [
        ("sign in", True),
        ("sign out", True),
    ]


@pytest.mark.parametrize("typed", ["anna", "nobody", "", "\x00", "x" * 100, "anna' OR 1=1 --"])
def test_a_wrong_name_or_password_says_the_same(application: FastAPI, owner: Database, typed: str) -> None:
    join(owner, "anna")
    answer = Person(application).sign_in(typed, "wrong password")
    assert answer.status_code == 400
    assert "The name or the password is wrong." in answer.text
    assert "set-cookie" not in answer.headers
    assert len(entries(owner, action="sign in", allowed=False)) == 1


def test_a_new_session_replaces_the_one_before(application: FastAPI, owner: Database) -> None:
    join(owner, "anna")
    join(owner, "bob")
    person = Person(application)
    person.sign_in("anna")
    before = person.web.cookies["cleanroom_session"]
    person.sign_in("bob")
    assert person.web.cookies["cleanroom_session"] != before
    assert sessions.find(owner, before, AGES) is None


def test_sessions_expire_unused_and_old(owner: Database, connect: Callable[[Role], Database]) -> None:
    join(owner, "anna")
    access, anna = connect(Role.ACCESS), accounts.get(owner, "anna")
    for column, where in (("seen_at", Ages(60, 86400)), ("created_at", Ages(86400 * 9, 60))):
        secret = sessions.begin(access, anna.id, "192.0.2.1", where)
        assert sessions.find(access, secret, where) == anna.id
        with owner.transaction() as cursor:
            cursor.execute(f"UPDATE cleanroom.session SET {column} = now() - interval '61 seconds'")
        assert sessions.find(access, secret, where) is None
        # The next who signs in takes it away.
        sessions.begin(access, anna.id, "192.0.2.1", where)
        assert sessions.count(access, anna.id) == 1
        with owner.transaction() as cursor:
            cursor.execute("DELETE FROM cleanroom.session")


def test_a_used_session_goes_on(owner: Database, connect: Callable[[Role], Database]) -> None:
    join(owner, "anna")
    access, anna = connect(Role.ACCESS), accounts.get(owner, "anna")
    secret = sessions.begin(access, anna.id, "192.0.2.1", AGES)
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.session SET seen_at = now() - interval '50 minutes'")
    assert sessions.find(access, secret, AGES) == anna.id
    with owner.transaction() as cursor:
        assert cursor.value("SELECT now() - seen_at < interval '1 minute' FROM cleanroom.session")


def test_an_open_page_is_nobody_who_is_there(application: FastAPI, owner: Database) -> None:
    join(owner, "anna")
    anna = Person(application)
    anna.sign_in("anna")
    for headers, seen in (({"Sec-Fetch-Dest": "empty"}, False), ({"Sec-Fetch-Dest": "document"}, True)):
        with owner.transaction() as cursor:
            cursor.execute("UPDATE cleanroom.session SET seen_at = now() - interval '50 minutes'")
        assert anna.web.get("/queue", headers=headers).status_code == 200
        with owner.transaction() as cursor:
            assert cursor.value("SELECT now() - seen_at < interval '1 minute' FROM cleanroom.session") is seen


def test_a_new_password_and_a_removal_end_sessions(application: FastAPI, owner: Database) -> None:
    join(owner, "anna", AccountRole.ADMINISTRATOR)
    anna = Person(application)
    anna.sign_in("anna")
    accounts.set_password(owner, "anna", KEPT, actor="root")
    anna.page("/account", 303)
    anna.sign_in("anna")
    anna.page("/account")
    accounts.remove(owner, "anna", actor="root")
    anna.page("/account", 303)
    assert anna.sign_in("anna").status_code == 400
    # Who comes back later comes back with nothing.
    join(owner, "anna")
    assert accounts.holder(owner, accounts.get(owner, "anna")).grants == ()


def test_attempts_are_limited_by_account(application: FastAPI, owner: Database) -> None:
    join(owner, "anna")
    person = Person(application)
    for _ in range(sessions.OF_ACCOUNT):
        assert person.sign_in("anna", "wrong").status_code == 400
    answer = person.sign_in("anna")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "900")
    assert "wait for 15 minutes" in answer.text
    # The audit log cannot be flooded by it.
    assert len(entries(owner, action="sign in")) == sessions.OF_ACCOUNT
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.sign_in_failure SET at = at - interval '16 minutes'")
    assert person.sign_in("anna").status_code == 303


def test_attempts_are_limited_by_address_and_side_by_side(owner: Database, connect: Callable[[Role], Database]) -> None:
    database, refused = connect(Role.ACCESS), []

    def attack(number: int) -> None:
        for turn in range(6):
            try:
                sessions.attempt(database, f"victim-{number}-{turn}", "192.0.2.1")
            except TooManyAttempts:
                refused.append(1)

    threads = [threading.Thread(target=attack, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(refused) == 48 - sessions.OF_ADDRESS
    sessions.attempt(database, "victim", "192.0.2.2")


# -- forms -------------------------------------------------------------------------------------------------------------


def test_a_form_from_elsewhere_is_refused(application: FastAPI, owner: Database) -> None:
    join(owner, "anna", AccountRole.MANAGER)
    anna, mallory = Person(application), Person(application)
    anna.sign_in("anna")
    fields = anna.fields("/account", "/sign-out")
    for wrong in ({**fields, "token": "0" * 64}, {**fields, "token": ""}, {"everywhere": "yes"}):
        assert anna.send("/sign-out", wrong).status_code == 403
    assert anna.send("/sign-out", fields, Origin="https://evil.example").status_code == 403
    assert anna.send("/sign-out", fields, Origin="null").status_code == 403
    assert anna.web.post("/sign-out", data=fields, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    # The token of somebody else's page does not help either.
    theirs = mallory.fields("/sign-in", "/sign-in")["token"]
    assert anna.send("/sign-out", {"token": theirs}).status_code == 403
    assert len(entries(owner, actor="anna", action="form", allowed=False)) == 7
    anna.page("/account")


def test_nobody_is_signed_in_by_another_site(application: FastAPI, owner: Database) -> None:
    join(owner, "mallory")
    fields = {"name": "mallory", "password": PASSWORD, "token": "0" * 64}
    assert Person(application).send("/sign-in", fields).status_code == 403
    assert Person(application).send("/sign-in", {**fields, "token": ""}).status_code == 403


def test_everybody_gets_a_form_of_his_own(application: FastAPI) -> None:
    """Pages are shared by those who ask at the same time; this one has a secret."""
    forms = [Person(application) for _ in range(3)]
    tokens_of_forms = {one.fields("/sign-in", "/sign-in")["token"] for one in forms}
    assert len(tokens_of_forms) == len({one.web.cookies["cleanroom_visit"] for one in forms}) == 3


def test_a_form_is_small_and_a_form(application: FastAPI) -> None:
    person = Person(application)
    fields = person.fields("/sign-in", "/sign-in")
    assert person.send("/sign-in", {**fields, "name": "x" * (1 << 17)}).status_code == 413
    assert person.send("/sign-in", {**fields, **{f"n{one}": "" for one in range(100)}}).status_code == 400
    sent = person.web.post("/sign-in", json=fields, headers={"Origin": "http://testserver"})
    assert sent.status_code == 400
    raw = person.web.post(
        "/sign-in", content=b"name=\xff", headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert raw.status_code == 400


@pytest.mark.parametrize("then", ["//evil.example", "https://evil.example/", "/%5Cevil.example", "%09//evil.example"])
def test_signing_in_leads_nowhere_else(application: FastAPI, owner: Database, then: str) -> None:
    join(owner, "anna")
    assert Person(application).sign_in("anna", then=then).headers["Location"] == "/"


# -- who may read ------------------------------------------------------------------------------------------------------


def test_a_closed_site_leads_to_the_form(closed: FastAPI, owner: Database) -> None:
    add_product(owner)
    published(owner, "v1", {"a": P})
    join(owner, "anna", AccountRole.READER)
    join(owner, "nobody")
    person = Person(closed)
    person.web.base_url = "https://web.example"
    answer = person.web.get("/release/hello/v1?target=x")
    assert (answer.status_code, answer.headers["Location"]) == (
        303,
        "/sign-in?next=%2Frelease%2Fhello%2Fv1%3Ftarget%3Dx",
    )
    for address in ("/", "/changes", "/log/1", "/products", "/requests/1"):
        assert person.web.get(address).status_code == 303, address
    assert person.web.get("/changes", headers={"Accept": "text/event-stream"}).status_code == 401
    assert person.web.get("/static/style.css").status_code == 200
    fields = person.fields("/sign-in?next=/queue", "/sign-in")
    answer = person.web.post(
        "/sign-in", data={**fields, "name": "anna", "password": PASSWORD}, headers={"Origin": "https://web.example"}
    )
    assert (answer.status_code, answer.headers["Location"]) == (303, "/queue")
    assert re.match(r"__Host-cleanroom_session=[^;]+;.*Secure", answer.headers["Set-Cookie"])
    person.page("/release/hello/v1")
    accounts.revoke(owner, "anna", AccountRole.READER, None, actor="root")
    assert "may not read" in person.web.get("/queue").text


def test_the_rows_of_access_are_read_by_nobody_else(owner: Database, connect: Callable[[Role], Database]) -> None:
    join(owner, "anna")
    for role in (Role.WEB, Role.MASTER, Role.PUBLISHER, Role.REFS):
        for table in ("account", "account_grant", "session", "api_token", "sign_in_failure"):
            with pytest.raises(DatabaseRefused), connect(role).transaction() as cursor:
                cursor.execute(f"SELECT * FROM cleanroom.{table}")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO cleanroom.account_grant (account, role, granted_by) SELECT id, 'administrator', 'x'"
        " FROM cleanroom.account",
        "INSERT INTO cleanroom.account (name, password, created_by) VALUES ('evil', '$argon2id$', 'x')",
        "UPDATE cleanroom.account SET password = '$argon2id$'",
        "INSERT INTO cleanroom.audit (actor, action, subject, written_by) VALUES ('x', 'x', 'x', 'cleanroom')",
        "UPDATE cleanroom.release SET commit = repeat('b', 40)",
        "UPDATE cleanroom.api_token SET expires_at = now()",
        "UPDATE cleanroom.repository_request SET state = 'done'",
        "DELETE FROM cleanroom.audit",
        "INSERT INTO cleanroom.repository_request (kind, actor, reason) VALUES ('retire-key', 'x', 'x')",
    ],
)
def test_the_web_status_makes_no_administrators(
    owner: Database, connect: Callable[[Role], Database], statement: str
) -> None:
    join(owner, "anna")
    with pytest.raises(DatabaseRefused), connect(Role.ACCESS).transaction() as cursor:
        cursor.execute(statement)


# -- tokens ------------------------------------------------------------------------------------------------------------


def token_of(owner: Database, name: str, role: AccountRole, product: str | None = None) -> str:
    later = datetime.now(UTC) + timedelta(days=1)
    account = accounts.get(owner, name)
    return tokens.add(owner, account.id, name, "ci", role=role, product=product, expires_at=later, actor="root")[1]


def by(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_a_token_stands_for_its_account(application: FastAPI, closed: FastAPI, owner: Database) -> None:
    join(owner, "anna", AccountRole.MANAGER)
    secret = token_of(owner, "anna", AccountRole.READER)
    program = Person(closed)
    assert program.web.get("/queue", headers=by(secret)).status_code == 200
    with owner.transaction() as cursor:
        row = cursor.row("SELECT * FROM cleanroom.api_token")
    assert row is not None
    assert secret not in str(row)
    assert row["used_at"] is not None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("UPDATE cleanroom.api_token SET expires_at = now()", "the token ci has expired"),
        ("UPDATE cleanroom.api_token SET revoked_at = now()", "the token ci was revoked"),
        ("UPDATE cleanroom.account SET removed_at = now(), password = NULL", "the account of the token ci was removed"),
        ("UPDATE cleanroom.api_token SET secret = repeat('0', 64)", "the token is not known"),
    ],
)
def test_a_token_that_is_not_valid_is_refused(application: FastAPI, owner: Database, change: str, why: str) -> None:
    join(owner, "anna", AccountRole.MANAGER)
    secret = token_of(owner, "anna", AccountRole.MANAGER)
    with owner.transaction() as cursor:
        cursor.execute(change)
    answer = Person(application).web.get("/", headers=by(secret))
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert why in answer.text
    [entry] = entries(owner, action="token", allowed=False)
    assert entry.detail["why"] == why


def test_a_removed_account_s_token_is_refused(application: FastAPI, owner: Database) -> None:
    join(owner, "anna", AccountRole.MANAGER)
    secret = token_of(owner, "anna", AccountRole.MANAGER)
    accounts.remove(owner, "anna", actor="root")
    join(owner, "anna", AccountRole.MANAGER)
    assert Person(application).web.get("/", headers=by(secret)).status_code == 401


def test_wrong_tokens_do_not_flood_the_audit_log(application: FastAPI, owner: Database) -> None:
    program = Person(application)
    states = [program.web.get("/", headers=by("cleanroom_x")).status_code for _ in range(sessions.OF_ACCOUNT + 3)]
    assert states == [401] * sessions.OF_ACCOUNT + [429] * 3
    assert len(entries(owner, action="token")) == sessions.OF_ACCOUNT
    assert program.web.get("/", headers={"Authorization": "Basic eDp4"}).status_code == 429


def test_a_token_may_do_less_than_its_account() -> None:
    manager = AccountRole.MANAGER
    account = accounts.Account(1, "anna", None, None, None, datetime.now(UTC), "root", None)
    whole = Holder(account, (accounts.Grant(manager, None),))
    reading = whole.limited(AccountRole.READER, None, "ci")
    assert not reading.may(AccountRole.DEVELOPER, "hello")
    one = whole.limited(AccountRole.ADMINISTRATOR, "hello", "ci")
    assert one.may(manager, "hello")
    assert not one.may(AccountRole.ADMINISTRATOR, "hello")
    assert not one.may(AccountRole.READER, "other")
    assert not one.may(manager, None)
    of_one = Holder(account, (accounts.Grant(manager, "hello"),))
    assert of_one.limited(manager, "other", "ci").grants == ()
    assert of_one.limited(manager, None, "ci").may(manager, "hello")


def test_tokens_are_checked_before_they_are_made(owner: Database) -> None:
    join(owner, "anna")
    token_of(owner, "anna", AccountRole.READER)
    with pytest.raises(InputError, match="already"):
        token_of(owner, "anna", AccountRole.READER)
    with pytest.raises(TokenRefused):
        tokens.find(owner, "")
    with pytest.raises(InputError, match="name"):
        accounts.add(owner, "Anna Müller", actor="root")
    with pytest.raises(InputError, match="already"):
        join(owner, "anna")

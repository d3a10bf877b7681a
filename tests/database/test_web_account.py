"""What people do with their own account: tokens and the password."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from database_server import add_product
from fastapi import FastAPI
from people import PASSWORD, Person, entries, join
from starlette.testclient import TestClient

from cleanroom_base.errors import InputError
from cleanroom_db import accounts
from cleanroom_db.connection import Database, DatabaseRefused
from cleanroom_db.roles import Role
from cleanroom_db.sessions import digest
from cleanroom_db.states import AccountRole
from cleanroom_master.web.application import create
from cleanroom_master.web.site import Site

NEW = "another horse battery"


@pytest.fixture
def application(pages: Site, owner: Database) -> Iterator[FastAPI]:
    """The web status, and the product hello."""
    add_product(owner)
    made = create(pages)
    with TestClient(made):
        yield made


@pytest.fixture
def anna(application: FastAPI, owner: Database) -> Person:
    """A developer of hello."""
    join(owner, "anna", AccountRole.DEVELOPER, "hello")
    one = Person(application)
    assert one.sign_in("anna").status_code == 303
    return one


def sent(one: Person, address: str, **typed: str) -> tuple[int, str]:
    """A form of the account's page, filled in and sent: the status and the text of what came."""
    token = one.fields("/account", address)["token"]
    answer = one.send(address, {"token": token, **typed})
    return answer.status_code, answer.text


def test_a_token_is_shown_once_and_may_what_its_account_may(
    anna: Person, application: FastAPI, owner: Database
) -> None:
    status, text = sent(anna, "/account/tokens", name="ci", role="developer", product="hello", days="30")
    assert status == 200
    secret = text.split('id="secret">')[1].split("<")[0]
    assert secret.startswith("cleanroom_")
    page = anna.page("/account")
    assert "ci" in page.text
    assert secret not in page.text
    program = Person(application)
    bearer = {"Authorization": f"Bearer {secret}"}
    shown = program.page_with("/account", bearer).text
    assert "developer for hello" in shown
    # A token makes no tokens, and no passwords.
    assert "Make a token" not in shown
    for address in ("/account/tokens", "/account/tokens/revoke", "/account/password"):
        refused = program.web.post(address, data={"name": "x"}, headers=bearer)
        assert (refused.status_code, "not for a token" in refused.text) == (403, True)
    [entry] = entries(owner, action="token add")
    assert (entry.actor, entry.subject, entry.written_by) == ("anna", "anna ci", "cleanroom_access")
    assert sent(anna, "/account/tokens/revoke", name="ci")[0] == 303
    assert program.web.get("/account", headers=bearer).status_code == 401


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ({"name": "Not a name"}, "cannot be a token&#39;s name"),
        ({"days": "0"}, "expires after 1 to 366 days"),
        ({"days": "1e3"}, "expires after 1 to 366 days"),
        ({"role": "owner"}, "there is no role"),
        ({"product": "nothing"}, "there is no product"),
    ],
)
def test_what_is_wrong_with_a_wish_for_a_token_is_said(anna: Person, typed: dict[str, str], why: str) -> None:
    status, text = sent(anna, "/account/tokens", **{"name": "ci", "role": "reader", "days": "30", **typed})
    assert status == 400
    assert why in text
    assert "You have none." in text


def test_nobody_makes_tokens_for_others(application: FastAPI) -> None:
    nobody = Person(application)
    assert nobody.web.get("/account").status_code == 303
    for address in ("/account/tokens", "/account/password"):
        assert nobody.send(address, {"name": "x"}).status_code == 403


def test_a_new_password_ends_all_other_sessions(anna: Person, application: FastAPI, owner: Database) -> None:
    elsewhere = Person(application)
    assert elsewhere.sign_in("anna").status_code == 303
    wrong = {
        "the present password is another one": ("wrong password", NEW, NEW),
        "typed in two ways": (PASSWORD, NEW, NEW + "!"),
        "from 10 to 1024 characters": (PASSWORD, "short", "short"),
    }
    for why, (current, password, again) in wrong.items():
        status, text = sent(anna, "/account/password", current=current, password=password, again=again)
        assert (status, why in text) == (400, True)
    assert sent(anna, "/account/password", current=PASSWORD, password=NEW, again=NEW)[0] == 303
    assert "It is changed" in anna.page("/account?done=password").text
    assert elsewhere.web.get("/account").status_code == 303
    assert Person(application).sign_in("anna").status_code == 400
    assert Person(application).sign_in("anna", NEW).status_code == 303
    [entry] = entries(owner, action="account password")
    assert (entry.actor, entry.subject) == ("anna", "anna")


def test_the_web_changes_no_other_password(anna: Person, owner: Database, connect: Callable[[Role], Database]) -> None:
    access = connect(Role.ACCESS)
    with pytest.raises(DatabaseRefused), access.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.account SET password = NULL")
    with pytest.raises(InputError, match="has no password"):
        accounts.change_password(access, "no session", "$argon2id$x", "here")
    accounts.add(owner, "by-provider", actor="root", issuer="https://i.example", subject="1")
    with owner.transaction() as cursor:
        cursor.execute(
            "INSERT INTO cleanroom.session (secret, account, address)"
            " SELECT %(secret)s, id, '' FROM cleanroom.account WHERE name = 'by-provider'",
            secret=digest("session"),
        )
    with pytest.raises(InputError, match="has no password"):
        accounts.change_password(access, "session", "$argon2id$x", "here")

"""People sign in through a provider of OpenID Connect, which speaks real HTTP and signs with real keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from fastapi import FastAPI
from httpx2 import Response
from joserfc.jwk import RSAKey
from openid_provider import CLIENT, SECRET, SmallProvider, running
from people import Person, entries, settings_of
from starlette.testclient import TestClient

from cleanroom_base.errors import InputError
from cleanroom_db import accounts
from cleanroom_db.connection import Database
from cleanroom_db.states import AccountRole
from cleanroom_master.web.application import create
from cleanroom_master.web.openid import Provider
from cleanroom_master.web.site import Site
from cleanroom_master.web.visitors import Access


@pytest.fixture(scope="module")
def answering() -> Iterator[SmallProvider]:
    """The provider's process."""
    with running() as provider:
        yield provider


@pytest.fixture
def provider(answering: SmallProvider) -> SmallProvider:
    """The provider, honest."""
    fresh = SmallProvider(answering.address)
    answering.__dict__.update({**fresh.__dict__, "key": answering.key})
    return answering


def site_of(pages: Site, place: Path, provider: SmallProvider, **variables: str) -> FastAPI:
    """A web status that knows the provider."""
    settings = settings_of(
        place,
        CLEANROOM_OPENID_ISSUER=provider.address,
        CLEANROOM_OPENID_CLIENT=CLIENT,
        CLEANROOM_OPENID_SECRET=SECRET,
        CLEANROOM_OPENID_NAME="Our House",
        **variables,
    )
    assert pages.access is not None
    return create(
        replace(pages, access=Access(pages.access.database, pages.access.part, settings, Provider.of(settings)))
    )


@pytest.fixture
def application(pages: Site, provider: SmallProvider, tmp_path: Path) -> Iterator[FastAPI]:
    """A web status that knows the provider, running."""
    made = site_of(pages, tmp_path, provider)
    with TestClient(made):
        yield made


def at_provider(person: Person, then: str = "/queue") -> dict[str, str]:
    """Go to the provider, and return what it sends the person back with."""
    answer = person.web.get(f"/sign-in/openid?next={then}")
    assert answer.status_code == 303, answer.text
    back = requests.get(answer.headers["Location"], allow_redirects=False, timeout=30)
    address = urlsplit(back.headers["Location"])
    assert f"{address.scheme}://{address.netloc}{address.path}" == "http://testserver/sign-in/openid/return"
    return dict(parse_qsl(address.query))


def come_back(person: Person, said: dict[str, str]) -> Response:
    return person.web.get("/sign-in/openid/return", params=said)


def test_somebody_new_signs_in_and_may_read(application: FastAPI, provider: SmallProvider, owner: Database) -> None:
    anna = Person(application)
    page = anna.page("/sign-in?next=/queue")
    assert "Sign in with Our House" in page.text
    assert "/sign-in/openid?next=%2Fqueue" in page.links()
    said = at_provider(anna)
    [asked] = provider.asked
    assert (asked["response_type"], asked["code_challenge_method"], asked["client_id"]) == ("code", "S256", CLIENT)
    answer = come_back(anna, said)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/queue")
    assert "reader for all products" in anna.page("/account").text
    [holder] = accounts.list_all(owner)
    assert (holder.name, holder.account.subject) == ("anna.m-ller", "248289761001")
    assert [(one.action, one.actor) for one in entries(owner)] == [
        ("account add", "anna.m-ller"),
        ("sign in", "anna.m-ller"),
    ]
    # The next time it is the same account, whatever she is called now.
    provider.person = {"sub": "248289761001", "preferred_username": "root"}
    again = Person(application)
    assert come_back(again, at_provider(again)).status_code == 303
    assert len(accounts.list_all(owner)) == 1


def test_somebody_else_of_the_same_name_is_somebody_else(
    application: FastAPI, provider: SmallProvider, owner: Database
) -> None:
    accounts.add(owner, "anna", actor="root")
    accounts.grant(owner, "anna", AccountRole.ADMINISTRATOR, None, actor="root")
    provider.person = {"sub": "1", "preferred_username": "anna"}
    other = Person(application)
    come_back(other, at_provider(other))
    page = other.page("/account").text
    assert "anna-2" in page
    assert "administrator" not in page


def test_a_code_is_taken_once_and_only_in_the_browser_that_asked(application: FastAPI, owner: Database) -> None:
    anna, mallory = Person(application), Person(application)
    said = at_provider(anna)
    # Mallory has her link; and she may be given Mallory's.
    assert come_back(mallory, said).status_code == 403
    at_provider(mallory)
    assert come_back(mallory, said).status_code == 403
    assert come_back(anna, {**said, "state": said["state"] + "x"}).status_code == 403
    assert come_back(anna, {**said, "state": ""}).status_code == 403
    assert come_back(anna, {**said, "iss": "https://other.example"}).status_code == 403
    assert accounts.list_all(owner) == []
    assert come_back(anna, said).status_code == 303
    assert come_back(anna, said).status_code == 403


def test_where_to_go_cannot_be_changed_on_the_way(application: FastAPI) -> None:
    anna = Person(application)
    said = at_provider(anna, "//evil.example")
    assert come_back(anna, said).headers["Location"] == "/"


@pytest.mark.parametrize(
    "lies",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "somebody else"},
        {"aud": [CLIENT, "somebody else"], "azp": "somebody else"},
        {"iss": "https://other.example"},
        {"exp": 1},
        {"exp": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
    ],
    ids=str,
)
def test_claims_that_are_not_valid_let_nobody_in(
    application: FastAPI, provider: SmallProvider, owner: Database, lies: dict[str, object]
) -> None:
    provider.lies = lies
    anna = Person(application)
    answer = come_back(anna, at_provider(anna))
    assert answer.status_code == 403
    assert "Our House" in answer.text
    assert accounts.list_all(owner) == []
    assert "cleanroom_session" not in anna.web.cookies


@pytest.mark.parametrize("signed", ["unsigned", "shared", "other"])
def test_signatures_of_others_let_nobody_in(
    application: FastAPI, provider: SmallProvider, owner: Database, signed: str
) -> None:
    provider.signed = signed
    anna = Person(application)
    assert come_back(anna, at_provider(anna)).status_code == 403
    assert accounts.list_all(owner) == []


def test_new_keys_are_found(application: FastAPI, provider: SmallProvider) -> None:
    anna = Person(application)
    assert come_back(anna, at_provider(anna)).status_code == 303
    provider.key = RSAKey.generate_key(2048, {"kid": "second"})
    assert come_back(anna, at_provider(anna)).status_code == 303


def test_what_the_provider_says_is_shown_harmlessly(application: FastAPI, provider: SmallProvider) -> None:
    provider.denies = True
    anna = Person(application)
    answer = come_back(anna, at_provider(anna))
    assert answer.status_code == 403
    assert "she said &lt;no&gt;" in answer.text


def test_a_provider_that_is_away_or_another_is_said(pages: Site, provider: SmallProvider, tmp_path: Path) -> None:
    provider.issuer = "https://other.example"
    with TestClient(site_of(pages, tmp_path, provider), follow_redirects=False) as web:
        assert web.get("/sign-in/openid").status_code == 503
    gone = SmallProvider("http://127.0.0.1:9")
    with TestClient(site_of(pages, tmp_path, gone), follow_redirects=False) as web:
        answer = web.get("/sign-in/openid")
        assert answer.status_code == 503
        assert "127.0.0.1" not in answer.text


def test_who_was_removed_stays_out_and_new_ones_may_have_to_be_made(
    pages: Site, provider: SmallProvider, tmp_path: Path, owner: Database
) -> None:
    made = site_of(pages, tmp_path, provider, CLEANROOM_OPENID_ACCOUNTS="no")
    with TestClient(made):
        anna = Person(made)
        answer = come_back(anna, at_provider(anna))
        assert answer.status_code == 403
        assert "cleanroom account add NAME --openid 248289761001" in answer.text
        assert [one.allowed for one in entries(owner, action="sign in")] == [False]
        accounts.add(owner, "anna", actor="root", issuer=provider.address, subject="248289761001")
        assert come_back(anna, at_provider(anna)).status_code == 303
        accounts.remove(owner, "anna", actor="root")
    made = site_of(pages, tmp_path, provider)
    with TestClient(made):
        anna = Person(made)
        assert come_back(anna, at_provider(anna)).status_code == 403
        assert accounts.list_all(owner) == []


@pytest.mark.parametrize("issuer", ["http://login.example", "login.example", "file:///etc"])
def test_an_issuer_without_tls_is_refused(issuer: str) -> None:
    with pytest.raises(InputError, match="https"):
        Provider(issuer, "cleanroom", None, "x", "https://web.example/return")

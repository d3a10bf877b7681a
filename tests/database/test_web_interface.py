"""The interface for programs: the facts of the command line, in parts, not sent twice, and true to its description."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import schemathesis
import uvicorn
from database_server import add_product, begin, claim
from hypothesis import HealthCheck, Phase, given, settings
from people import join, settings_of
from recorded import F, P, build, claimed, published
from schemathesis import APIOperation, GenerationMode
from schemathesis.checks import load_all_checks
from starlette.testclient import TestClient

from cleanroom_db import accounts, phases, services, tokens
from cleanroom_db.connection import Database
from cleanroom_db.roles import Role
from cleanroom_db.states import AccountRole
from cleanroom_db.view import release_view
from cleanroom_master.web.application import create
from cleanroom_master.web.site import Site
from cleanroom_master.web.visitors import Access

API = "/api/v1"
PROBLEM = "application/problem+json"


def get(web: TestClient, path: str, status: int = 200, **headers: str) -> dict | list:
    """What an address answers, which is JSON."""
    answer = web.get(API + path, headers=headers)
    assert answer.status_code == status, (answer.status_code, answer.text[:2000])
    assert answer.headers["content-type"] == ("application/json" if status == 200 else PROBLEM)
    return answer.json()


@pytest.fixture
def filled(owner: Database) -> int:
    """A record with some of everything; returns the id of a release that regressed."""
    add_product(owner)
    add_product(owner, "other")
    published(owner, "v1", {"a": P, "b": P})
    published(owner, "v1", {"a": P}, product="other")
    release = claimed(owner, "v2/with-a-slash")
    build(owner, release, {"a": P, "b": F}, failing={"regress": "1 of 2 tests failed"})
    phases.start(owner, begin(owner, claim(owner, "v3")), 0, "build")
    services.host_seen(owner, "alpha", ("container",), 2, 2048)
    services.heartbeat(owner, "web", "running", 1)
    return release.id


def test_a_release_is_told_as_the_command_line_tells_it(web: TestClient, owner: Database, filled: int) -> None:
    ref = "v2/with-a-slash"
    expected = json.loads(json.dumps(release_view(owner, "hello", ref)))
    assert get(web, f"/releases/{filled}") == expected
    assert get(web, f"/products/hello/release?ref={ref}") == expected
    attempt = expected["builds"][0]["attempts"][0]["id"]
    whole = get(web, f"/attempts/{attempt}")
    assert [one["phase"]["name"] for one in whole["phases"]] == ["build", "install", "upgrade", "regress"]
    [step] = whole["phases"][3]["steps"]
    assert get(web, f"/steps/{step['id']}")["phase"] == "regress"
    assert web.get(f"{API}/steps/{step['id']}/log").headers["content-type"].startswith("text/plain")
    cases = get(web, f"/phases/{whole['phases'][3]['phase']['id']}/tests")
    assert [(case["name"], case["outcome"]) for case in cases] == [("a", "passed"), ("b", "failed")]
    compared = get(web, f"/releases/{filled}/comparison")
    assert compared["regressed"] is True
    assert [case["name"] for case in compared["cases"] if case["change"] == "regressed"] == ["b"]
    [history] = get(web, "/products/hello/test?name=b")["histories"]
    assert history["failing_since"]["ref"] == ref


def test_what_is_published_and_where_it_runs(web: TestClient, filled: int) -> None:
    assert {one["state"] for one in get(web, "/releases")} == {"published", "failed", "building"}
    assert get(web, "/products/hello")["channels"][0]["ref"] == "v1"
    numbers = [one["number"] for one in get(web, "/generations")]
    assert get(web, f"/generations/{numbers[0]}")["number"] == numbers[0]
    changed = get(web, f"/generations/{numbers[0]}/difference?since={numbers[-1]}")
    assert [one["product"] for one in changed["releases_added"]] == ["other"]
    assert get(web, f"/generations/{numbers[0]}/packages") == []
    assert [one["ref"] for one in get(web, "/queue")["queue"]] == ["v3"]
    assert [one["ref"] for one in get(web, "/running")] == ["v3"]
    assert get(web, "/hosts")[0]["name"] == "alpha"
    for path in ("/services", "/targets"):
        assert get(web, path)
    for path in ("/images", "/channels"):
        assert get(web, path) == []


def test_lists_go_on_where_they_say(web: TestClient, owner: Database) -> None:
    for name in ("a", "b", "c", "d", "e"):
        add_product(owner, name)
        claim_of(owner, name)

    def all_of(path: str, key: str) -> list[str]:
        found, pages = [], 0
        while path:
            answer = web.get(path)
            part = [one[key] for one in answer.json()]
            assert len(part) <= 2
            found, pages = found + part, pages + 1
            path = next(iter(re.findall(r'<([^>]*)>; rel="next"', answer.headers.get("link", ""))), "")
        assert pages == 3
        return found

    assert all_of(f"{API}/products?limit=2", "name") == ["a", "b", "c", "d", "e"]
    assert all_of(f"{API}/releases?limit=2&channel=testing", "product") == ["e", "d", "c", "b", "a"]


def claim_of(owner: Database, product: str) -> None:
    """A release of a product."""
    claimed(owner, "v1", product=product)


def test_nothing_is_sent_twice(web: TestClient, owner: Database, filled: int) -> None:
    address = f"{API}/releases/{filled}"
    tag = web.get(address).headers["etag"]
    for have in (tag, f'W/{tag}, "other"', "*"):
        again = web.get(address, headers={"If-None-Match": have})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert web.get(address, headers={"If-None-Match": '"other"'}).status_code == 200
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.release SET why = 'something else' WHERE id = %(id)s", id=filled)
    assert web.get(address, headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/releases/999", 404),
        ("/releases/0", 422),
        ("/releases/99999999999999999999", 422),
        ("/releases?state=great", 422),
        ("/releases?limit=100000", 422),
        ("/products/%00", 404),
        ("/nothing", 404),
        ("/products/hello/release?ref=none", 404),
    ],
)
def test_what_goes_wrong_is_told(web: TestClient, owner: Database, path: str, status: int) -> None:
    add_product(owner)
    found = get(web, path, status)
    assert (found["status"], found["type"]) == (status, "about:blank")
    assert found["title"]
    assert found["detail"]
    answer = web.delete(f"{API}/releases")
    assert (answer.status_code, answer.headers["content-type"], answer.headers["allow"]) == (405, PROBLEM, "GET")


def test_addresses_of_repositories_keep_their_secrets(web: TestClient, owner: Database) -> None:
    add_product(owner)
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.product SET url = 'https://anna:secret@example.org/hello.git'")
    assert get(web, "/products/hello")["url"] == "https://example.org/hello.git"
    assert "secret" not in web.get(f"{API}/products").text


def test_who_may_not_read_pages_may_not_read_here(
    pages: Site, connect: Callable[[Role], Database], owner: Database, tmp_path: Path
) -> None:
    add_product(owner)
    join(owner, "anna", AccountRole.READER)
    join(owner, "none")
    later = datetime.now(UTC) + timedelta(days=1)

    def token(name: str) -> str:
        account = accounts.get(owner, name).id
        return tokens.add(
            owner, account, name, "ci", role=AccountRole.READER, product=None, expires_at=later, actor="root"
        )[1]

    closed = Access(connect(Role.ACCESS), connect(Role.READER), settings_of(tmp_path, CLEANROOM_WEB_ANONYMOUS="none"))
    with TestClient(create(replace(pages, access=closed))) as web:

        def asked(path: str, authorization: str = "") -> tuple[int, str]:
            answer = web.get(path, headers={"Authorization": authorization} if authorization else {})
            return answer.status_code, answer.headers["content-type"]

        assert asked(f"{API}/products") == (401, PROBLEM)
        assert asked(f"{API}/products", "Bearer wrong") == (401, PROBLEM)
        assert asked(f"{API}/products", f"Bearer {token('none')}") == (403, PROBLEM)
        assert asked(f"{API}/products", f"Bearer {token('anna')}") == (200, "application/json")
        for path in ("/metrics", "/product/hello/feed.atom", "/product/hello/badge.svg"):
            answer = web.get(path, headers={"Accept": "application/json"})
            assert answer.status_code == 401


@pytest.fixture
def served(pages: Site) -> Iterator[str]:
    """The web status over HTTP."""
    server = uvicorn.Server(uvicorn.Config(create(pages), port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


def test_the_description_holds_for_whatever_is_asked(served: str, filled: int) -> None:
    load_all_checks()
    schema = schemathesis.openapi.from_url(f"{served}{API}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 20
    for operation in operations:
        _ask(operation, GenerationMode.POSITIVE, 4)
        if list(operation.iter_parameters()):
            _ask(operation, GenerationMode.NEGATIVE, 3)


def _ask(operation: APIOperation, mode: GenerationMode, examples: int) -> None:
    """Ask for what the description allows, or does not, and hold the answers against it."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate()

    ask()

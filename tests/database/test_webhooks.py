"""Webhooks of forges: signed, new, of a watched repository, and then a look at it; otherwise nothing but an answer."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from cleanroom_db import products, webhooks
from cleanroom_db.connection import Database
from cleanroom_db.listen import LOOK, Listener
from cleanroom_db.roles import Role
from cleanroom_master.web.application import create
from cleanroom_master.web.site import Site
from cleanroom_master.web.webhooks import receiving
from cleanroom_master.web.webhooks.receiving import Receiver

SECRET = b"agreed on"
URL = "https://forge.example/anna/tool.git"
PATH = "/api/v1/webhooks/github"


@pytest.fixture
def receiver(connect: Callable[[Role], Database], tmp_path: Path) -> Receiver:
    """A receiver with a secret for all, and one of a single product."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "other").write_text("its own\n")
    return Receiver(connect(Role.HOOKS), SECRET, tmp_path / "secrets", 3600.0)


@pytest.fixture
def forge(pages: Site, receiver: Receiver, owner: Database) -> Iterator[TestClient]:
    """A forge, and two watched products."""
    products.add(owner, "tool", "git@forge.example:Anna/Tool.git")
    products.add(owner, "other", "https://forge.example/anna/other.git")
    with TestClient(create(pages, receiver)) as client:
        yield client


def push(url: str = URL, at: float | None = None, **more: Any) -> bytes:
    """The body of a webhook about a pushed tag."""
    pushed_at = int(time.time() if at is None else at)
    return json.dumps(
        {"ref": "refs/tags/v1", "repository": {"clone_url": url, "pushed_at": pushed_at}, **more}
    ).encode()


def send(
    client: TestClient, body: bytes, *, delivery: str = "one", secret: bytes = SECRET, path: str = PATH, **more: str
) -> tuple[int, dict[str, Any]]:
    """What is answered to a webhook of GitHub."""
    headers = {
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest(),
        "Content-Type": "application/json",
        **more,
    }
    answer = client.post(path, content=body, headers=headers)
    return answer.status_code, answer.json()


def test_a_webhook_has_the_repository_looked_at(forge: TestClient, owner: Database) -> None:
    with Listener(owner.url, [LOOK]) as listener:
        listener.wait(5)
        assert send(forge, push()) == (200, {"state": "taken", "products": ["tool"]})
        assert listener.wait(20) == {LOOK}
    assert webhooks.wishes(owner) == {"tool": 1}
    [one] = webhooks.latest(owner)
    assert (one.forge, one.delivery, one.event, one.product) == ("github", "one", "push", "tool")
    # Nothing that it says is believed.
    with owner.transaction() as cursor:
        assert cursor.value("SELECT count(*) FROM cleanroom.ref_event") == 0


def test_what_comes_again_is_done_once(forge: TestClient, owner: Database) -> None:
    body = push()
    assert send(forge, body)[1]["state"] == "taken"
    assert send(forge, body)[1]["state"] == "repeated"
    # Its name is not signed: another one does not make it another webhook.
    assert send(forge, body, delivery="two")[1]["state"] == "repeated"
    assert webhooks.wishes(owner) == {"tool": 1}
    assert send(forge, push(after="b" * 40), delivery="three")[1]["state"] == "taken"
    assert webhooks.wishes(owner) == {"tool": 2}


def test_a_look_that_began_before_a_wish_does_not_grant_it(forge: TestClient, owner: Database) -> None:
    send(forge, push())
    seen = webhooks.wishes(owner)["tool"]
    send(forge, push(after="b" * 40), delivery="two")
    webhooks.granted(owner, "tool", seen)
    assert webhooks.wishes(owner) == {"tool": 2}
    webhooks.granted(owner, "tool", 2)
    assert webhooks.wishes(owner) == {}


def test_what_is_not_right_is_refused_and_changes_nothing(forge: TestClient, owner: Database) -> None:
    def refused(status: int, words: str, *arguments: Any, **more: Any) -> None:
        answered, problem = send(forge, *arguments, **more)
        assert (answered, problem["status"]) == (status, status), problem
        assert words in problem["title"] + problem["detail"], problem

    refused(401, "not signed by github", push(), secret=b"guessed")
    refused(404, "Nobody watches", push("https://forge.example/anna/unknown"))
    refused(400, "too old", push(at=time.time() - 4000))
    refused(400, "of the future", push(at=time.time() + 4000))
    refused(400, "not JSON", b"payload=x")
    refused(422, "not valid", push(), path="/api/v1/webhooks/sourceforge")
    refused(401, "not signed", push("https://forge.example/anna/other"), path=f"{PATH}/other")
    refused(404, "of this name", push(), path=f"{PATH}/unknown")
    assert webhooks.latest(owner) == []
    assert webhooks.wishes(owner) == {}


def test_a_product_can_have_a_secret_of_its_own(forge: TestClient, owner: Database) -> None:
    body = push("ssh://git@forge.example/anna/other")
    assert send(forge, body, secret=b"its own", path=f"{PATH}/other")[1] == {"state": "taken", "products": ["other"]}
    # With it nothing is said of other products.
    status, problem = send(forge, push(), secret=b"its own", path=f"{PATH}/other", delivery="two")
    assert (status, "other" in webhooks.wishes(owner), "tool" in webhooks.wishes(owner)) == (404, True, False), problem


def test_events_that_tell_of_no_refs_are_ignored(forge: TestClient, owner: Database) -> None:
    answer = send(forge, b'{"zen": "Keep it logically awesome."}', **{"X-GitHub-Event": "ping"})
    assert answer == (200, {"state": "ignored", "products": []})
    assert webhooks.latest(owner) == []


def test_without_a_secret_nothing_is_taken(pages: Site, connect: Callable[[Role], Database], owner: Database) -> None:
    products.add(owner, "tool", URL)
    with TestClient(create(pages, Receiver(connect(Role.HOOKS), None, None, 3600.0))) as client:
        status, problem = send(client, push(), secret=b"")
    assert (status, "webhooks.secret" in problem["hint"]) == (401, True)


def test_what_is_too_large_is_refused_before_it_is_read(pages: Site, receiver: Receiver) -> None:
    read: list[int] = []
    answers: list[dict[str, Any]] = []

    def ask(headers: list[tuple[bytes, bytes]]) -> int:
        read.clear()
        answers.clear()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": PATH,
            "raw_path": PATH.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }

        async def receive() -> dict[str, Any]:
            read.append(1 << 20)
            return {"type": "http.request", "body": b"x" * (1 << 20), "more_body": sum(read) < 100 << 20}

        async def answer(message: dict[str, Any]) -> None:
            answers.append(message)

        asyncio.run(create(pages, receiver)(scope, receive, answer))
        return int(answers[0]["status"])

    assert ask([(b"content-length", b"%d" % (100 << 20))]) == 413
    assert read == []
    # Nor is one that does not say how large it is read to its end.
    assert ask([(b"transfer-encoding", b"chunked")]) == 413
    assert sum(read) <= receiving.LIMIT + (1 << 20)
    assert (b"connection", b"close") in answers[0]["headers"]


def test_what_is_remembered_is_bounded(forge: TestClient, owner: Database) -> None:
    send(forge, push())
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.webhook_delivery SET received_at = now() - interval '1 day'")
    send(forge, push(after="b" * 40), delivery="two")
    assert [one.delivery for one in webhooks.latest(owner)] == ["two"]

"""Messages about changes of state: written with the change, made once, sent until they are taken."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pytest
from database_server import Server, add_product, begin
from recorded import F, P, build, claimed, publish, published

from cleanroom_base import settings as site
from cleanroom_base.settings import Settings
from cleanroom_db import attempts, generations, notifications, releases
from cleanroom_db.connection import Database
from cleanroom_db.generations import Leaving
from cleanroom_db.notifications import Notification
from cleanroom_db.roles import Role
from cleanroom_db.states import NotificationState, Removal
from cleanroom_master.notifications import endpoints, telling
from cleanroom_master.notifications.sending import Sender
from cleanroom_master.notifications.service import Notifier, deliver
from cleanroom_recipes.model import Outcome

PATIENCE = 60.0
WEB = "http://web.example"
WEBHOOK = '[program]\nkind = "webhook"\nurl = "{url}"\nsecret_file = "{secret}"\n'


@dataclass
class Web:
    """A server that takes what is posted, or answers with the statuses that it is told to, in their order."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    said: bytes = b""

    @property
    def contents(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, _, body in self.requests]


@pytest.fixture
def web_server() -> Iterator[Web]:
    """A real HTTP server."""
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            web.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(web.statuses.pop(0) if web.statuses else 200)
            for name, value in web.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(web.said)))
            self.end_headers()
            self.wfile.write(web.said)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield web
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def mail_server() -> Iterator[tuple[int, list[bytes]]]:
    """A real SMTP server, with what it took. Source: RFC 5321."""
    taken: list[bytes] = []

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 mail.example\r\n")
            for line in self.rfile:
                word = line[:4].upper()
                if word == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    taken.append(b"".join(iter(self.rfile.readline, b".\r\n")))
                if word == b"QUIT":
                    self.wfile.write(b"221 bye\r\n")
                    return
                self.wfile.write(b"550 nobody\r\n" if b"nobody@" in line else b"250 well\r\n")

    class Mail(ThreadingTCPServer):
        daemon_threads = True

    server = Mail(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1], taken
    server.shutdown()
    server.server_close()
    thread.join()


def settings_of(directory: Path, text: str, **more: str) -> Settings:
    """A site that tells others."""
    (directory / "secret").write_text("agreed on\n")
    (directory / endpoints.FILE).write_text(text)
    return site.load(
        {
            "CLEANROOM_STATE": str(directory),
            "CLEANROOM_SITE": str(directory),
            "CLEANROOM_WEB_URL": WEB,
            "CLEANROOM_NOTIFICATIONS_PAUSE": "0.01",
            **more,
        }
    )


@pytest.fixture
def teller(connect: Callable[[Role], Database]) -> Database:
    """This test's database as what tells others."""
    return connect(Role.NOTIFICATIONS)


def told(owner: Database, teller: Database, settings: Settings) -> list[tuple[str, str | None, str]]:
    """What is new since the last time: the event, the ref and the endpoint of each message."""
    before = {one.id for one in notifications.latest(owner)}
    telling.tell(teller, endpoints.load(settings), WEB)
    found = [one for one in reversed(notifications.latest(owner)) if one.id not in before]
    return [(str(one.event), one.content.get("ref"), one.endpoint) for one in found]


def send_all(teller: Database, settings: Settings) -> list[Notification]:
    """Send everything that is due, one after the other."""
    sent = []
    known = endpoints.load(settings)
    while (one := notifications.lease(teller, "test", 60)) is not None:
        deliver(settings, teller, Sender(settings), known, one, "test")
        sent.append(one)
    return sent


def lost(owner: Database, tag: str) -> None:
    """A release that the infrastructure spoiled."""
    held = begin(owner, claimed(owner, tag))
    attempts.finish(owner, held.attempt_id, held.owner, Outcome.INFRASTRUCTURE, "lost", attempts.RetryPolicy(limit=1))


def test_one_message_a_change_of_state(owner: Database, teller: Database, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, WEBHOOK.format(url="http://example.org", secret=tmp_path / "secret"))
    add_product(owner)
    published(owner, "v1", {"a": P, "b": P})
    assert told(owner, teller, settings) == [("published", "v1", "program")]
    build(owner, claimed(owner, "v2"), {"a": P, "b": F}, failing={"regress": "1 of 2 tests failed"})
    assert told(owner, teller, settings) == [("regressed", "v2", "program")]
    [one] = notifications.latest(owner, limit=1)
    assert one.content["comparison"]["against"] == "v1"
    assert one.content["comparison"]["names"] == ["regress tests b"]
    assert one.content["url"] == f"{WEB}/release/hello/v2"
    # It goes on failing, which is no news; nor is it that somebody looks once more.
    build(owner, claimed(owner, "v3"), {"a": F, "b": F}, failing={"regress": "2 of 2 tests failed"})
    assert told(owner, teller, settings) == []
    # What the infrastructure spoiled does not mend anything either.
    lost(owner, "v3.1")
    assert told(owner, teller, settings) == []
    published(owner, "v4", {"a": P, "b": P})
    assert told(owner, teller, settings) == [("fixed", "v4", "program"), ("published", "v4", "program")]
    assert told(owner, teller, settings) == []


def test_a_failure_of_what_never_passed_is_no_regression(owner: Database, teller: Database, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, WEBHOOK.format(url="http://example.org", secret=tmp_path / "secret"))
    add_product(owner)
    build(owner, claimed(owner, "v1"), {"a": F}, failing={"regress": "1 of 1 tests failed"})
    lost(owner, "v2")
    assert told(owner, teller, settings) == []


def test_what_is_undone_was_never_changed(owner: Database) -> None:
    add_product(owner)
    with owner.transaction() as cursor:
        before = cursor.value("SELECT count(*) FROM cleanroom.state_change")
    with pytest.raises(ZeroDivisionError), owner.transaction():
        claimed(owner, "v1")
        raise ZeroDivisionError
    with owner.transaction() as cursor:
        assert cursor.value("SELECT count(*) FROM cleanroom.state_change") == before


def test_a_rollback_is_one_message_for_each_who_wants_to_know(
    owner: Database, teller: Database, tmp_path: Path
) -> None:
    text = WEBHOOK.format(url="http://example.org", secret=tmp_path / "secret")
    text += '[people]\nkind = "email"\nto = ["a@example.org"]\nproducts = ["other"]\n'
    text += '[nobody]\nkind = "email"\nto = ["a@example.org"]\nproducts = ["third"]\n'
    settings = settings_of(tmp_path, text)
    for product in ("hello", "other"):
        add_product(owner, product)
        published(owner, "v1", {"a": P}, product=product)
    told(owner, teller, settings)
    with owner.transaction() as cursor:
        ids = [row["id"] for row in cursor.rows("SELECT id FROM cleanroom.channel_release")]
    generation = generations.prepare(
        owner,
        actor="anna",
        reason="v1 deletes files",
        leaving=[Leaving(Removal.ROLLBACK, "rolled back", tuple(ids))],
    )
    generations.switched(owner, generation)
    assert told(owner, teller, settings) == [("rolled_back", None, "program"), ("rolled_back", None, "people")]
    people, program = notifications.latest(owner, limit=2)
    assert [one["product"] for one in program.content["removed"]] == ["hello", "other"]
    assert [one["product"] for one in people.content["removed"]] == ["other"]
    assert program.content["reason"] == "v1 deletes files"


def test_recipes_subscribe_to_what_the_site_offers(owner: Database, teller: Database, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, '[people]\nkind = "email"\nto = ["a@example.org"]\nproducts = []\n')
    add_product(owner)
    published(owner, "v1", {"a": P})
    assert told(owner, teller, settings) == []
    with owner.transaction() as cursor:
        cursor.execute('UPDATE cleanroom.release SET recipe = \'{"notify": ["people"]}\'')
    published(owner, "v2", {"a": P})
    with owner.transaction() as cursor:
        cursor.execute('UPDATE cleanroom.release SET recipe = \'{"notify": ["people"]}\'')
    assert told(owner, teller, settings) == [("published", "v2", "people")]


def test_webhooks_are_signed(owner: Database, teller: Database, web_server: Web, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, WEBHOOK.format(url=f"{web_server.url}/hook", secret=tmp_path / "secret"))
    add_product(owner)
    published(owner, "v1", {"a": P})
    told(owner, teller, settings)
    [sent] = send_all(teller, settings)
    [(path, headers, body)] = web_server.requests
    assert path == "/hook"
    assert headers["webhook-id"] == sent.key == json.loads(body)["id"]
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 600
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    right = base64.b64encode(hmac.new(b"agreed on", signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{right}"
    assert json.loads(body)["event"] == "published"
    [one] = notifications.latest(owner)
    assert (one.state, one.tries) == (NotificationState.DELIVERED, 1)


def test_what_is_not_taken_is_tried_again_with_growing_pauses(
    owner: Database, teller: Database, web_server: Web, tmp_path: Path
) -> None:
    text = WEBHOOK.format(url=web_server.url, secret=tmp_path / "secret")
    settings = settings_of(tmp_path, text, CLEANROOM_NOTIFICATIONS_PAUSE="100", CLEANROOM_NOTIFICATIONS_ATTEMPTS="3")
    add_product(owner)
    published(owner, "v1", {"a": P})
    told(owner, teller, settings)
    web_server.statuses, web_server.said = [500, 307, 400], b"\x1b[31mno"
    web_server.headers = {"Location": f"{web_server.url}/elsewhere"}
    pauses, keys = [], set()
    for _ in range(3):
        assert len(send_all(teller, settings)) == 1
        [one] = notifications.latest(owner)
        keys.add(one.key)
        with owner.transaction() as cursor:
            pauses.append(
                cursor.value("SELECT extract(epoch FROM not_before - now())::float FROM cleanroom.notification")
            )
            cursor.execute("UPDATE cleanroom.notification SET not_before = now() WHERE state = 'pending'")
    assert 90 < pauses[0] <= 100 < 190 < pauses[1] <= 200
    assert (one.state, one.tries) == (NotificationState.FAILED, 3)
    assert one.problem == "answered 400: \\x1b[31mno"
    # What is signed for one place is not sent on to another.
    assert [path for path, _, _ in web_server.requests] == ["/", "/", "/"]
    notifications.retry(owner, one.id)
    assert len(send_all(teller, settings)) == 1
    assert len(keys | {found["id"] for found in web_server.contents}) == 1
    assert notifications.latest(owner)[0].state is NotificationState.DELIVERED


def test_a_message_that_somebody_sends_is_sent_by_nobody_else(
    owner: Database, teller: Database, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, WEBHOOK.format(url="http://example.org", secret=tmp_path / "secret"))
    add_product(owner)
    published(owner, "v1", {"a": P})
    told(owner, teller, settings)
    one = notifications.lease(teller, "first", 3600)
    assert one is not None
    assert notifications.lease(teller, "second", 3600) is None
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.notification SET lease_expires_at = now() - interval '1 second'")
    again = notifications.lease(teller, "second", 3600)
    assert again is not None
    assert (again.key, again.tries) == (one.key, 2)
    # The first was thought dead: what it says comes too late.
    notifications.settle(teller, one, "first", NotificationState.FAILED, "too late")
    assert notifications.latest(owner)[0].state is NotificationState.PENDING


@pytest.mark.parametrize("kind", ["github", "gitlab", "gitea"])
def test_commits_are_given_a_status(
    owner: Database, teller: Database, web_server: Web, tmp_path: Path, kind: str
) -> None:
    host = web_server.url.removeprefix("http://")
    text = f'[forge]\nkind = "{kind}"\nurl = "{web_server.url}"\ntoken_file = "{tmp_path / "secret"}"\n'
    text += '[elsewhere]\nkind = "github"\nurl = "https://github.com"\ntoken_file = "/nowhere"\n'
    settings = settings_of(tmp_path, text)
    add_product(owner)
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.product SET url = %(url)s", url=f"http://{host}/anna/tool.git")
    release = claimed(owner, "v1")
    told(owner, teller, settings)
    [first] = send_all(teller, settings)
    build(owner, release, {"a": P})
    publish(owner)
    # waiting, building, passed, published: only the last that waits is worth sending.
    assert [event for event, _, _ in told(owner, teller, settings)] == ["status"] * 3
    assert [one.id > first.id for one in send_all(teller, settings)] == [True]
    path, headers, body = web_server.requests[-1]
    states = [content["state"] for content in web_server.contents]
    commit = release.commit
    assert {
        "github": (f"/api/v3/repos/anna/tool/statuses/{commit}", "Bearer agreed on", ["pending", "success"]),
        "gitea": (f"/api/v1/repos/anna/tool/statuses/{commit}", "token agreed on", ["pending", "success"]),
        "gitlab": (f"/api/v4/projects/anna%2Ftool/statuses/{commit}", "agreed on", ["pending", "success"]),
    }[kind] == (path, headers.get("authorization") or headers["private-token"], states)
    assert json.loads(body)["target_url"] == f"{WEB}/release/hello/v1"
    if kind == "gitlab":
        web_server.statuses, web_server.said = [400], b"Cannot transition status via :enqueue from :pending"
        releases.hold(owner, claimed(owner, "v2").id, "anna", "wait")
        told(owner, teller, settings)
        send_all(teller, settings)
        assert {one.state for one in notifications.latest(owner, state=None)} <= {
            NotificationState.DELIVERED,
            NotificationState.SUPERSEDED,
        }


def test_people_and_rooms_are_told_in_words(
    owner: Database, teller: Database, web_server: Web, mail_server: tuple[int, list[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "room").write_text(f"{web_server.url}/room/secret\n")
    text = f'[room]\nkind = "chat"\nurl_file = "{tmp_path / "room"}"\n'
    text += '[people]\nkind = "email"\nto = ["a@example.org", "b@example.org"]\n'
    text += '[gone]\nkind = "email"\nto = ["nobody@example.org"]\n'
    port, taken = mail_server
    settings = settings_of(tmp_path, text, CLEANROOM_MAIL_SERVER="127.0.0.1", CLEANROOM_MAIL_PORT=str(port))
    add_product(owner)
    published(owner, "v1", {"a": P, "bös 😀\r\nBcc: x@example.org": P})
    told(owner, teller, settings)
    send_all(teller, settings)
    cases = {"a": P, "bös 😀\r\nBcc: x@example.org": F}
    build(owner, claimed(owner, "v2"), cases, failing={"regress": "failed"})
    told(owner, teller, settings)
    send_all(teller, settings)
    assert web_server.contents[-1] == {
        "text": f"hello v2 regressed since v1: 1 tests\n{WEB}/release/hello/v2",
    }
    message = BytesParser().parsebytes(taken[-1])
    assert message["Subject"] == "hello v2 regressed since v1: 1 tests"
    assert message["To"] == "a@example.org, b@example.org"
    assert message["Bcc"] is None
    body = message.get_payload(decode=True).decode()
    assert "bös 😀\\r\\nBcc: x@example.org" in body
    [one] = [one for one in notifications.latest(owner) if one.endpoint == "people" and one.event == "regressed"]
    assert one.key in message["Message-ID"]
    gone = [one for one in notifications.latest(owner) if one.endpoint == "gone"]
    assert {one.state for one in gone} == {NotificationState.PENDING}
    assert "nobody" in gone[0].problem


def test_a_room_s_address_is_told_to_nobody(owner: Database, teller: Database, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, '[room]\nkind = "chat"\nurl = "http://127.0.0.1:9/T0P/SECRET"\n')
    add_product(owner)
    published(owner, "v1", {"a": P})
    told(owner, teller, settings)
    one = notifications.lease(teller, "test", 60)
    assert one is not None
    deliver(settings, teller, Sender(settings), endpoints.load(settings), one, "test")
    [found] = notifications.latest(owner)
    assert found.problem.startswith("not reached")
    assert "SECRET" not in found.problem


def test_the_process_is_killed_and_every_message_arrives(
    owner: Database, server: Server, name: str, web_server: Web, tmp_path: Path
) -> None:
    add_product(owner)
    settings_of(tmp_path, WEBHOOK.format(url=web_server.url, secret=tmp_path / "secret"))
    environment = {
        "PATH": os.environ["PATH"],
        "CLEANROOM_STATE": str(tmp_path),
        "CLEANROOM_SITE": str(tmp_path),
        "CLEANROOM_DATABASE_URL": server.url(Role.OWNER, name),
        "CLEANROOM_DATABASE_NOTIFICATIONS_URL": server.url(Role.NOTIFICATIONS, name),
    }
    command = [sys.executable, "-m", "cleanroom_master.notifications"]
    published(owner, "v1", {"a": P})
    process = subprocess.Popen(command, env=environment)
    try:
        wait_until(lambda: len(web_server.requests) >= 1)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        published(owner, "v2", {"a": P})
        process = subprocess.Popen(command, env=environment)
        wait_until(lambda: {one["ref"] for one in web_server.contents} == {"v1", "v2"})
        published(owner, "v3", {"a": P})
        wait_until(lambda: {one["ref"] for one in web_server.contents} == {"v1", "v2", "v3"})
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
    keys = {one["ref"]: set() for one in web_server.contents}
    for one in web_server.contents:
        keys[one["ref"]].add(one["id"])
    assert all(len(found) == 1 for found in keys.values())


def test_a_slow_receiver_holds_up_no_other(owner: Database, teller: Database, web_server: Web, tmp_path: Path) -> None:
    waiting = threading.Event()
    text = WEBHOOK.format(url=web_server.url, secret=tmp_path / "secret")
    settings = settings_of(tmp_path, text + text.replace("[program]", "[slow]"))
    notifier = Notifier(settings, teller)
    send = Sender.send

    class Slow(Sender):
        def send(self, endpoint: Any, one: Any, subject: Any = None) -> None:
            if endpoint.name == "slow":
                waiting.wait(PATIENCE)
            send(self, endpoint, one, subject)

    notifier._sender = Slow(settings)
    thread = threading.Thread(target=notifier.run)
    thread.start()
    try:
        add_product(owner)
        published(owner, "v1", {"a": P})
        published(owner, "v2", {"a": P})
        wait_until(lambda: len(notifications.latest(owner, endpoint="program", state=NotificationState.DELIVERED)) == 2)
        assert notifications.latest(owner, endpoint="slow", state=NotificationState.DELIVERED) == []
        waiting.set()
        wait_until(lambda: len(notifications.latest(owner, state=NotificationState.DELIVERED)) == 4)
    finally:
        waiting.set()
        notifier.stop()
        thread.join(PATIENCE)


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)

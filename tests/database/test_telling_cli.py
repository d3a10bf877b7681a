"""What people ask about webhooks and messages on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from database_server import add_product
from recorded import P, published

from cleanroom_db import audit, notifications, webhooks
from cleanroom_db.connection import Database
from cleanroom_db.states import Forge, NotificationState
from cleanroom_master import cli
from cleanroom_master.notifications import endpoints, telling


@pytest.fixture(autouse=True)
def product(owner: Database, site: None) -> None:
    add_product(owner)


def test_what_came_and_what_went_is_listed(owner: Database, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / endpoints.FILE).write_text('[people]\nkind = "email"\nto = ["a@example.org"]\n')

    def ask(*words: str, status: int = 0) -> list[dict[str, object]]:
        assert cli.run([*words, "--format", "json"]) == status
        out = capsys.readouterr().out
        return json.loads(out) if out else []

    webhooks.receive(owner, Forge.GITEA, "one", "0" * 64, "push", ["hello"], kept=60)
    [came] = ask("webhook", "list", "--product", "hello")
    assert (came["forge"], came["delivery"]) == ("gitea", "one")
    published(owner, "v1", {"a": P})
    telling.tell(owner, {"people": endpoints.MailEndpoint(name="people", kind="email", to=("a@b",))}, "http://w")
    [went] = ask("notification", "list", "--endpoint", "people")
    assert (went["event"], went["state"], went["content"]["ref"]) == ("published", "pending", "v1")
    one = notifications.lease(owner, "test", 60)
    assert one is not None
    ask("notification", "retry", str(one.id), status=2)
    notifications.settle(owner, one, "test", NotificationState.FAILED, "no")
    assert [row["problem"] for row in ask("notification", "list", "--state", "failed")] == ["no"]
    assert ask("notification", "retry", str(one.id)) == {"retried": one.id}
    [again] = ask("notification", "list")
    assert (again["state"], again["key"], again["tries"]) == ("pending", one.key, 0)
    assert audit.list_latest(owner)[0].action == "notification retry"
    assert [row["name"] for row in ask("notification", "endpoints")] == ["people"]


def test_endpoints_are_checked_with_the_settings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / endpoints.FILE).write_text('[people]\nkind = "email"\nto = []\n')
    assert cli.run(["config", "check"]) == 2
    assert "people.to" in capsys.readouterr().err

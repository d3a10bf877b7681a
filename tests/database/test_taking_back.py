"""Rollback, promotion and withdrawal, as people ask for them and as the publisher does them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from database_server import Server
from shop import Killed, Shop, publishing
from tiny_packages import make_deb, make_rpm

from cleanroom_base.errors import InputError
from cleanroom_db import audit, generations, promotions, publications, releases, requests
from cleanroom_db.gates import NewWaiver
from cleanroom_db.promotions import GatesClosed
from cleanroom_db.releases import Release
from cleanroom_db.requests import Request
from cleanroom_db.roles import Role
from cleanroom_db.states import GateState, PublicationState, ReleaseState, RequestKind, RequestState
from cleanroom_db.view import release_view
from cleanroom_master import cli, security
from cleanroom_recipes import loader

POINTS = ["before build", "after build", "before switch", "after switch"]


def rolled_back(shop: Shop, target: int, *, reason: str = "broken", forced: bool = False) -> Request:
    return requests.ask(
        shop.owner, RequestKind.ROLLBACK, actor="anna", subject="x", reason=reason, target=target, forced=forced
    )


def withdrawn(shop: Shop, release: Release, *, channel: str | None = None, forced: bool = False) -> Request:
    return requests.ask(
        shop.owner,
        RequestKind.WITHDRAW,
        actor="anna",
        subject="x",
        reason="eats data",
        release_id=release.id,
        channel=channel,
        forced=forced,
    )


def promoted(shop: Shop, release: Release, *demanded: str) -> int | None:
    asked = promotions.promote(shop.owner, release, "stable", demanded, actor="anna", reason="good")
    return asked.publication


def state(shop: Shop, asked: Request) -> tuple[RequestState, str]:
    now = requests.get(shop.owner, asked.id)
    return now.state, now.why


@pytest.fixture
def three(shop: Shop, tmp_path: Path) -> list[Release]:
    """Three releases in three generations, apt and yum."""
    made = []
    for number in (1, 2, 3):
        release = shop.passed(f"v{number}", make_deb(tmp_path, version=f"{number}.0"))
        made.append(release)
        assert shop.publisher().turn() == 1
    return made


def test_a_rollback_is_a_new_generation_with_the_old_contents(shop: Shop, three: list[Release]) -> None:
    asked = rolled_back(shop, 1)
    assert shop.publisher().turn() == 1
    assert state(shop, asked) == (RequestState.DONE, "")
    assert requests.get(shop.owner, asked.id).generation == 4
    assert shop.published() == [("tiny", "1.0")]
    now = generations.current(shop.database)
    assert now is not None
    assert (now.number, now.actor, now.reason) == (4, "anna", "rollback to generation 1: broken")
    assert sorted(package["version"] for package in now.removed) == ["2.0", "3.0"]
    assert shop.state(three[0]) == (ReleaseState.PUBLISHED, "published in testing, generation 1")
    why = "testing: taken back by anna (to generation 1): broken"
    assert shop.state(three[2]) == (ReleaseState.WITHDRAWN, why)
    [gone] = release_view(shop.owner, "hello", "v3")["removed"]
    assert (gone["channel"], gone["generation"], gone["how"]) == ("testing", 4, "rollback")
    assert release_view(shop.owner, "hello", "v3")["published"] == []
    [entry] = audit.list_latest(shop.owner, "x")
    assert (entry.actor, entry.action, entry.reason) == ("anna", "repository rollback", "broken")


def test_a_rollback_can_be_taken_back(shop: Shop, three: list[Release]) -> None:
    rolled_back(shop, 1)
    shop.publisher().turn()
    rolled_back(shop, 3, reason="was not it")
    shop.publisher().turn()
    assert shop.published() == [("tiny", "1.0"), ("tiny", "2.0"), ("tiny", "3.0")]
    assert shop.state(three[2]) == (ReleaseState.PUBLISHED, "published in testing, generation 5")
    assert release_view(shop.owner, "hello", "v3")["removed"] == []
    found = generations.difference(shop.owner, 3, 5)
    assert (found.added, found.removed, found.releases_added, found.releases_removed) == ((), (), (), ())
    # The page was written before it was recorded what came back, and says of all of it whose it is.
    page = (shop.home / "repository/current/index.html").read_text()
    assert [f"hello</bdi> <bdi>{one.ref}" in page or f"hello {one.ref}" in page for one in three] == [True] * 3


def test_what_a_generation_had_comes_back_from_the_record_where_its_listing_is_damaged(
    shop: Shop, three: list[Release]
) -> None:
    withdrawn(shop, three[0])
    shop.publisher().turn()
    (shop.home / "repository/generations/2/generation.json").write_text("{}")
    asked = rolled_back(shop, 2)
    assert shop.publisher().turn() == 1
    assert state(shop, asked)[0] is RequestState.DONE
    assert shop.published() == [("tiny", "2.0")]


def test_what_was_rolled_back_is_not_published_by_the_next_release(shop: Shop, three: list[Release], tmp_path: Path):
    rolled_back(shop, 1)
    shop.publisher().turn()
    shop.passed("v4", make_deb(tmp_path, version="4.0"))
    assert shop.publisher().turn() == 1
    assert shop.published() == [("tiny", "1.0"), ("tiny", "4.0")]


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_a_rollback_is_done_once(shop: Shop, three: list[Release], point: str) -> None:
    asked = rolled_back(shop, 1)
    with pytest.raises(Killed):
        shop.publisher(shop.deadly(point)).turn()
    publisher = shop.publisher()
    publisher.recover()
    switched = point == "after switch"
    assert state(shop, asked)[0] is (RequestState.DONE if switched else RequestState.PENDING)
    assert publisher.turn() == (0 if switched else 1)
    assert state(shop, asked)[0] is RequestState.DONE
    assert shop.published() == [("tiny", "1.0")]
    assert [one.number for one in generations.history(shop.owner)] == [4, 3, 2, 1]
    assert shop.state(three[1])[0] is ReleaseState.WITHDRAWN


def test_what_cannot_be_gone_back_to_is_refused_and_changes_nothing(shop: Shop, three: list[Release]) -> None:
    asked = rolled_back(shop, 3)
    assert shop.publisher().turn() == 1
    assert state(shop, asked) == (RequestState.REFUSED, "generation 3 is the current one")
    with pytest.raises(InputError, match="a reason is needed"):
        rolled_back(shop, 1, reason=" ")
    (shop.home / "repository/generations/1").rename(shop.home / "away")
    asked = rolled_back(shop, 1)
    shop.publisher().turn()
    assert "generation 1 was collected" in state(shop, asked)[1]
    assert shop.repository().current() == 3


def test_a_security_fix_is_not_taken_back_without_insistence(shop: Shop, tmp_path: Path) -> None:
    shop.passed("v1", make_deb(tmp_path, version="1.0"))
    shop.publisher().turn()
    changes = tmp_path / "tiny_2.0_amd64.changes"
    changes.write_text("Urgency: high\nChanges:\n tiny (2.0)\n   * Fixes CVE-2030-12345.\n")
    fix = shop.passed("v2", make_deb(tmp_path, version="2.0"), changes)
    shop.publisher().turn()
    evidence = "CVE-2030-12345; urgency high"
    assert release_view(shop.owner, "hello", "v2")["security_fix"] == evidence
    for asked in (rolled_back(shop, 1), withdrawn(shop, fix)):
        shop.publisher().turn()
        assert state(shop, asked)[0] is RequestState.REFUSED
        assert f"would take security fixes back: hello v2 in testing ({evidence})" in state(shop, asked)[1]
    asked = rolled_back(shop, 1, forced=True)
    shop.publisher().turn()
    assert requests.get(shop.owner, asked.id).result["warnings"] == [
        f"takes back the security fix hello v2 in testing ({evidence})"
    ]
    now = generations.current(shop.owner)
    assert now is not None
    assert now.reason.endswith(f"(takes security fixes back: hello v2 in testing ({evidence}))")


@pytest.mark.parametrize(
    ("message", "changes", "found"),
    [
        ("Fix CVE-2030-1234 and CVE-2030-99999", "", "CVE-2030-1234, CVE-2030-99999"),
        ("", "Source: x\nUrgency: critical\n", "urgency critical"),
        ("", "Urgency: medium\nChanges:\n urgency: high\n", None),
        ("CVE-20-1 is no number", "", None),
    ],
)
def test_what_says_that_it_mends_security(message: str, changes: str, found: str | None) -> None:
    assert security.evidence(message, changes) == found


def test_what_was_withdrawn_never_comes_back(shop: Shop, three: list[Release], tmp_path: Path) -> None:
    asked = withdrawn(shop, three[1])
    assert shop.publisher().turn() == 1
    assert state(shop, asked)[0] is RequestState.DONE
    assert shop.published() == [("tiny", "1.0"), ("tiny", "3.0")]
    assert shop.state(three[1]) == (ReleaseState.WITHDRAWN, "testing: withdrawn by anna: eats data")
    [row] = generations.withdrawn(shop.owner)
    assert (row["channel"], row["version"], row["actor"], row["reason"]) == ("testing", "2.0", "anna", "eats data")
    # A rollback to a generation that has it leaves it out, and says so.
    back = rolled_back(shop, 2)
    shop.publisher().turn()
    assert shop.published() == [("tiny", "1.0")]
    assert requests.get(shop.owner, back.id).result["kept_out"] == ["tiny 2.0 in testing"]
    assert shop.state(three[1])[0] is ReleaseState.WITHDRAWN
    # Nor does another tag of the same bytes bring it back.
    again = shop.passed("v2-again", make_deb(tmp_path / "again", version="2.0"))
    assert shop.publisher().turn() == 0
    held, why = shop.state(again)
    assert held is ReleaseState.HELD
    assert "tiny 2.0 was withdrawn from testing by anna: eats data" in why


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_a_withdrawal_is_done_once(shop: Shop, three: list[Release], point: str) -> None:
    asked = withdrawn(shop, three[1])
    with pytest.raises(Killed):
        shop.publisher(shop.deadly(point)).turn()
    publisher = shop.publisher()
    publisher.recover()
    publisher.turn()
    assert state(shop, asked)[0] is RequestState.DONE
    assert shop.published() == [("tiny", "1.0"), ("tiny", "3.0")]
    assert [row["version"] for row in generations.withdrawn(shop.owner)] == ["2.0"]


def test_a_rolled_back_release_can_still_be_withdrawn_for_good(shop: Shop, three: list[Release]) -> None:
    rolled_back(shop, 2)
    shop.publisher().turn()
    asked = withdrawn(shop, three[2])
    shop.publisher().turn()
    assert state(shop, asked)[0] is RequestState.REFUSED
    assert "is in no channel" in state(shop, asked)[1]


def test_a_release_that_waits_is_withdrawn_before_it_is_out(shop: Shop, three: list[Release], tmp_path: Path) -> None:
    release = shop.passed("v4", make_deb(tmp_path, version="4.0"))
    withdrawn(shop, release)
    assert shop.publisher().turn() == 1
    assert shop.state(release) == (ReleaseState.WITHDRAWN, "withdrawn by anna: eats data")
    assert shop.published() == [("tiny", "1.0"), ("tiny", "2.0"), ("tiny", "3.0")]
    assert shop.repository().current() == 3


def test_a_promotion_publishes_the_same_bytes_further(shop: Shop, tmp_path: Path) -> None:
    release = shop.passed("v1", make_rpm(tmp_path), kind="rpm")
    shop.publisher().turn()
    asked = promoted(shop, release, "builds")
    assert asked is not None
    assert shop.publisher().turn() == 1
    assert publications.get(shop.owner, asked).state is PublicationState.PUBLISHED
    here, there = (
        [one.sha256 for one in generations.contents(shop.owner, 2) if one.channel == channel]
        for channel in ("testing", "stable")
    )
    assert here == there
    assert shop.state(release)[1] == "published in testing, generation 1; published in stable, generation 2"
    now = generations.current(shop.owner)
    assert now is not None
    assert now.actor == "anna"
    [entry] = audit.list_latest(shop.owner, "hello v1")
    assert (entry.action, entry.reason, entry.detail["channel"]) == ("release promote", "good", "stable")
    assert promoted(shop, release) is None  # it is there


@pytest.mark.parametrize("point", ["after the pool", *POINTS])
def test_killed_at_any_point_a_promotion_is_done_once(shop: Shop, tmp_path: Path, point: str) -> None:
    release = shop.passed("v1", make_deb(tmp_path))
    shop.publisher().turn()
    asked = promoted(shop, release)
    assert asked is not None
    with pytest.raises(Killed):
        shop.publisher(shop.deadly(point)).turn()
    publisher = shop.publisher()
    publisher.recover()
    publisher.turn()
    assert publications.get(shop.owner, asked).state is PublicationState.PUBLISHED
    assert shop.published() == [("tiny", "1.0"), ("tiny", "1.0")]


def test_a_promotion_is_held_to_the_gates_of_its_channel(shop: Shop, tmp_path: Path) -> None:
    release = shop.passed("v1", make_deb(tmp_path))
    with pytest.raises(InputError, match="is not in testing"):
        promoted(shop, release)
    shop.publisher().turn()
    with pytest.raises(GatesClosed, match="signature: the tag's signature is unchecked"):
        promoted(shop, release, "builds", "signature")
    with pytest.raises(GatesClosed, match="phase:upgrade"):
        promoted(shop, release, "phase:upgrade")
    assert publications.pending(shop.owner) == []
    assert audit.list_latest(shop.owner, "hello v1") == []
    # Whoever promotes approves; and nothing is in stable that it could be worse than.
    assert promoted(shop, release, "approval", "no-regression") is not None


def test_a_gate_of_a_channel_can_be_waived_for_a_promotion_and_counts_nowhere_else(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = shop.passed("v1", make_deb(tmp_path))
    shop.publisher().turn()
    later = datetime.now(UTC) + timedelta(days=1)
    demanded = ["builds", "phase:upgrade", "no-lost-tests"]

    def waived(gate: str, channel: str = "stable", reason: str = "no older one") -> None:
        promotions.waive(shop.owner, release, channel, demanded, NewWaiver(gate, "anna", reason, later))

    for gate, why in {"builds": "cannot be waived", "phase:other": "has no gate", "no-lost-tests": "holds"}.items():
        with pytest.raises(InputError, match=why):
            waived(gate)
    with pytest.raises(InputError, match="needs a reason"):
        waived("phase:upgrade", reason=" ")
    waived("phase:upgrade", "other")
    with pytest.raises(GatesClosed, match=r"phase:upgrade.*\n.*release waive \.\.\. --channel stable"):
        promoted(shop, release, *demanded)
    for name, value in {"DATABASE_URL": shop.owner.url, "STATE": str(tmp_path), "SITE": str(tmp_path)}.items():
        monkeypatch.setenv(f"CLEANROOM_{name}", value)
    monkeypatch.setenv("CLEANROOM_GATES_STABLE", "phase:upgrade")
    with shop.owner.transaction() as cursor:
        recipe = loader.load(b'builder = "deb"', source="x", name="hello", url="https://example.org/x.git")
        text = json.dumps(loader.to_json(recipe))
        cursor.execute("UPDATE cleanroom.release SET recipe = %(recipe)s::jsonb", recipe=text)
    words = ["--channel", "stable", "--reason", "no older one", "--expires", later.isoformat(), "--format", "json"]
    assert cli.run(["release", "waive", "hello", "v1", "phase:upgrade", *words]) == 0
    assert json.loads(capsys.readouterr().out)["channel"] == "stable"
    asked = promotions.promote(shop.owner, release, "stable", demanded, actor="anna", reason="good")
    states = {one.gate: (one.state, one.why) for one in asked.gates}
    assert states["phase:upgrade"][0] is GateState.WAIVED
    assert states["phase:upgrade"][1].endswith(": no older one")
    waivers = release_view(shop.owner, "hello", "v1")["waivers"]
    assert [(one["channel"], one["gate"]) for one in waivers] == [
        ("other", "phase:upgrade"),
        ("stable", "phase:upgrade"),
    ]
    entry = audit.list_latest(shop.owner, "hello v1")[-2]
    assert (entry.action, entry.detail["channel"]) == ("release waive", "stable")


def test_a_withdrawal_from_one_channel_leaves_the_other(shop: Shop, three: list[Release]) -> None:
    promoted(shop, three[0])
    shop.publisher().turn()
    withdrawn(shop, three[0], channel="stable")
    shop.publisher().turn()
    assert shop.published() == [("tiny", "1.0"), ("tiny", "2.0"), ("tiny", "3.0")]
    assert shop.state(three[0]) == (
        ReleaseState.PUBLISHED,
        "published in testing, generation 1; stable: withdrawn by anna: eats data",
    )
    with pytest.raises(InputError, match="was withdrawn from stable"):
        promoted(shop, releases.get(shop.owner, three[0].id))


# -- the command line ------------------------------------------------------------------------------------------


@pytest.fixture
def site(server: Server, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEANROOM_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("CLEANROOM_SITE", str(tmp_path / "site"))
    monkeypatch.setenv("CLEANROOM_DATABASE_URL", server.url(Role.OWNER, name))


@pytest.fixture
def at_work(shop: Shop) -> Iterator[None]:
    """A publisher that looks again and again, as the process does."""
    with publishing(shop):
        yield


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    status = cli.run([*words, "--format", "json"])
    told = capsys.readouterr()
    return status, json.loads(told.out) if told.out else told.err


@pytest.mark.usefixtures("site", "at_work")
def test_taking_back_on_the_command_line(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "anna")
    recipe = loader.to_json(loader.load(b'builder = "deb"', source="x", name="hello", url="https://example.org/h.git"))
    for number in (1, 2):
        release = shop.passed(f"v{number}", make_deb(tmp_path, version=f"{number}.0"))
        while shop.state(release)[0] is not ReleaseState.PUBLISHED:
            pass
    with shop.owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.release SET recipe = %(recipe)s", recipe=recipe)
    status, found = ask(capsys, "repository", "diff", "1", "2")
    assert (status, list(found)) == (
        0,
        ["from", "to", "added", "removed", "releases_added", "releases_removed"],
    )
    assert [one["version"] for one in found["added"]] == ["2.0"]
    assert found["releases_added"] == [{"product": "hello", "ref": "v2", "channel": "testing", "security_fix": None}]
    status, found = ask(capsys, "repository", "rollback", "1", "--reason", "broken")
    assert (status, found) == (
        0,
        {"generation": 3, "contents_of": 1, "actor": "anna", "reason": "broken", "warnings": [], "kept_out": []},
    )
    status, found = ask(capsys, "release", "promote", "hello", "v1", "--reason", "good")
    assert (status, found["channel"], found["generation"], found["gates"][0]["state"]) == (0, "stable", 4, "holds")
    assert ask(capsys, "release", "promote", "hello", "v1", "--reason", "good")[1]["generation"] is None
    status, found = ask(capsys, "release", "withdraw", "hello", "v1", "--reason", "eats data")
    assert (status, found["channels"], found["generation"]) == (0, ["testing", "stable"], 5)
    status, found = ask(capsys, "repository", "show")
    assert [(one["name"], one["packages"]) for one in found["channels"]] == [("stable", []), ("testing", [])]
    assert found["channels"][0]["withdrawn"][0]["reason"] == "eats data"
    status, found = ask(capsys, "repository", "verify")
    assert (status, found) == (
        0,
        {"generation": 5, "identical": True, "problems": [], "repaired_by": None, "left": []},
    )
    assert ask(capsys, "repository", "gc") == (0, {"generations": [], "files": 0, "size": 0})
    page = (shop.home / "repository/current/index.html").read_text()
    assert "Withdrawn</h2>" in page
    assert "eats data" in page
    for bad in (["repository", "rollback", "9", "--reason", "x"], ["repository", "diff", "1", "9"]):
        status, told = ask(capsys, *bad)
        assert (status, "there is no generation 9" in told) == (2, True)
    status, told = ask(capsys, "release", "promote", "hello", "v2", "--reason", "x")
    assert (status, "is not in testing" in told) == (2, True)


@pytest.mark.usefixtures("site")
def test_without_a_publisher_the_command_ends_and_says_so(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.passed("v1", make_deb(tmp_path))
    shop.settle()
    status, told = ask(capsys, "repository", "verify", "--timeout", "0.1")
    assert (status, "the publisher has not done it" in told) == (4, True)

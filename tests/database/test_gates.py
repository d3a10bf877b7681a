"""Gates of recorded releases: what is kept, waivers, approval; and what the command line says of all that."""

from __future__ import annotations

import getpass
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from database_server import DIGEST, add_product
from recorded import F, P, build, claimed, publish, published

from cleanroom_base.errors import InputError
from cleanroom_db import audit, publications, releases
from cleanroom_db.connection import Database
from cleanroom_db.releases import Release
from cleanroom_db.states import ReleaseState
from cleanroom_db.view import release_view
from cleanroom_master import cli

LATER = timedelta(days=7)


@pytest.fixture(autouse=True)
def hello(owner: Database) -> None:
    add_product(owner)


@pytest.fixture
def upgraded(owner: Database, master: Database) -> Release:
    """A release whose upgrade failed on one of two targets."""
    targets = ("debian-12/deb", "debian-13/deb")
    published(owner, "v1", {"a": P}, *targets)
    release = claimed(owner, "v2", *targets, gates=("builds", "no-lost-tests", "phase:upgrade"))
    build(owner, release, {"a": P}, writer=master)
    build(owner, release, {"a": P}, failing={"upgrade": "no service"}, writer=master)
    return releases.get(owner, release.id)


def states(owner: Database, ref: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for gate in release_view(owner, "hello", ref)["gates"]:
        found.setdefault(gate["gate"], []).append(gate["state"])
    return found


def waive(owner: Database, release: Release, gate: str, expires: timedelta = LATER) -> Release:
    return releases.waive(owner, release.id, "anna", gate, reason="known", expires_at=datetime.now(UTC) + expires)


def test_a_release_says_which_gate_does_not_hold(owner: Database, upgraded: Release) -> None:
    assert upgraded.state is ReleaseState.FAILED
    assert upgraded.why == "debian-13/deb: upgrade: no service; 1 of 3 gates hold"
    assert states(owner, "v2") == {
        "builds": ["holds", "fails"],
        "no-lost-tests": ["holds", "holds"],
        "phase:upgrade": ["holds", "fails"],
    }
    view = release_view(owner, "hello", "v2")
    [failed] = [gate for gate in view["gates"] if (gate["gate"], gate["state"]) == ("phase:upgrade", "fails")]
    assert (failed["target"], failed["why"]) == (
        "debian-13/deb",
        "`upgrade` from v1 failed on debian-13/deb (no service)",
    )
    assert failed["evaluated_at"].endswith("Z")


def test_a_waived_phase_lets_the_release_out_with_all_its_packages(owner: Database, upgraded: Release) -> None:
    after = waive(owner, upgraded, "phase:upgrade")
    assert after.state is ReleaseState.PASSED
    assert states(owner, "v2")["phase:upgrade"] == ["holds", "waived"]
    assert [one.ref for one in publications.pending(owner)] == ["v2"]
    [entry] = audit.list_latest(owner, "hello v2")
    assert (entry.actor, entry.action, entry.reason, entry.detail["gate"]) == (
        *("anna", "release waive", "known", "phase:upgrade"),
    )
    [waiver] = release_view(owner, "hello", "v2")["waivers"]
    assert (waiver["gate"], waiver["actor"], waiver["active"]) == ("phase:upgrade", "anna", True)


def test_files_of_a_failed_build_leave_only_after_the_waiver(owner: Database) -> None:
    release = claimed(owner, "v1")
    held = build(owner, release, failing={"upgrade": "no"})
    with owner.transaction() as cursor:
        cursor.execute(
            "INSERT INTO cleanroom.artifact (attempt_id, phase, file, sha256, size, kind)"
            " VALUES (%(attempt)s, 'build', 'hello.deb', %(digest)s, 1, 'deb')",
            attempt=held.attempt_id,
            digest=DIGEST,
        )
    assert publications.files(owner, release.id) == []
    waive(owner, release, "phase:upgrade")
    assert [file.file for file in publications.files(owner, release.id)] == ["hello.deb"]


def test_an_expired_waiver_does_not_count(owner: Database) -> None:
    release = claimed(owner, "v1")
    waive(owner, release, "phase:upgrade")
    with owner.transaction() as cursor:
        cursor.execute(
            "UPDATE cleanroom.gate_waiver SET waived_at = now() - interval '2 days',"
            " expires_at = now() - interval '1 second'"
        )
    build(owner, release, failing={"upgrade": "no"})
    assert releases.get(owner, release.id).state is ReleaseState.FAILED
    assert release_view(owner, "hello", "v1")["waivers"][0]["active"] is False


def test_a_waiver_before_the_builds_end_counts(owner: Database) -> None:
    release = claimed(owner, "v1")
    assert waive(owner, release, "phase:upgrade").state is ReleaseState.WAITING
    build(owner, release, failing={"upgrade": "no"})
    assert releases.get(owner, release.id).state is ReleaseState.PASSED


@pytest.mark.parametrize(
    ("gate", "reason", "expires", "message"),
    [
        ("builds", "known", LATER, "cannot be waived as a whole"),
        ("nonsense", "known", LATER, "has no gate 'nonsense'"),
        ("phase:upgrade", " ", LATER, "needs a reason"),
        ("phase:upgrade", "known", -LATER, "ends in the future"),
        ("phase:install", "known", LATER, "holds: there is nothing to waive"),
    ],
)
def test_a_bad_waiver_changes_nothing(
    owner: Database, upgraded: Release, gate: str, reason: str, expires: timedelta, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        releases.waive(owner, upgraded.id, "anna", gate, reason=reason, expires_at=datetime.now(UTC) + expires)
    assert releases.get(owner, upgraded.id) == upgraded
    assert audit.list_latest(owner) == []


def test_what_left_cannot_be_waived(owner: Database) -> None:
    release = published(owner, "v1")
    with pytest.raises(InputError, match="hello v1 is published"):
        waive(owner, release, "phase:upgrade")


def test_a_regression_holds_a_release_whose_builds_passed(owner: Database) -> None:
    """The step with the tests only informs, so that the phase passes: the gate sees it all the same."""
    published(owner, "v1", {"a": P, "b": P})
    release = claimed(owner, "v2", gates=("builds", "no-regression"))
    build(owner, release, {"a": F, "b": P})
    held = releases.get(owner, release.id)
    assert held.state is ReleaseState.HELD
    assert held.why == "held: 1 test regressed (a) since v1 on debian-12/deb; 1 of 2 gates hold"
    assert publications.pending(owner) == []
    assert waive(owner, release, "no-regression").state is ReleaseState.PASSED
    publish(owner)
    assert releases.get(owner, release.id).state is ReleaseState.PUBLISHED


def test_without_anything_published_nothing_can_regress(owner: Database) -> None:
    release = claimed(owner, "v1", gates=("builds", "no-regression"))
    build(owner, release, {"a": F})
    assert releases.get(owner, release.id).state is ReleaseState.PASSED
    view = release_view(owner, "hello", "v1")
    assert view["gates"][1]["why"] == "nothing is published in testing for debian-12/deb yet"
    assert view["comparison"]["against"] is None


def test_approval_is_a_gate_and_opens_no_other(owner: Database) -> None:
    published(owner, "v1", {"a": P})
    release = claimed(owner, "v2", gates=("builds", "no-regression", "approval"))
    build(owner, release, {"a": F})
    assert releases.get(owner, release.id).why.endswith("; waits for approval; 1 of 3 gates hold")
    after = releases.approve(owner, release.id, "anna", "looks good")
    assert after.state is ReleaseState.HELD
    assert after.why == "held: 1 test regressed (a) since v1 on debian-12/deb; 2 of 3 gates hold"
    assert states(owner, "v2")["approval"] == ["holds"]
    assert waive(owner, release, "no-regression").state is ReleaseState.PASSED


def test_a_retry_forgets_what_was_judged(owner: Database, upgraded: Release) -> None:
    releases.retry(owner, upgraded.id, "anna")
    assert states(owner, "v2") == {"builds": [None], "no-lost-tests": [None], "phase:upgrade": [None]}
    build(owner, upgraded, {"a": P})
    assert releases.get(owner, upgraded.id).state is ReleaseState.PASSED


def test_a_release_shows_what_regressed(owner: Database) -> None:
    published(owner, "v1", {f"case {number:02}": P for number in range(30)})
    release = claimed(owner, "v2")
    cases = {f"case {number:02}": F for number in range(30)}
    build(owner, release, {**cases, "added": P}, failing={"regress": "tests failed"})
    view = release_view(owner, "hello", "v2")
    compared = view["comparison"]
    assert (compared["against"], compared["regressed"], compared["new"], compared["fixed"]) == ("v1", 30, 1, 0)
    assert compared["phases"] == ["regress"]
    assert compared["names"]["regressed"] == [f"regress tests case {number:02}" for number in range(20)]
    assert view["builds"][0]["comparison"] == compared
    assert view["comparison_with_previous"]["against"] == "v1"


# -- the command line ----------------------------------------------------------------------------------------------


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    status = cli.run([*words, "--format", "json"])
    told = capsys.readouterr()
    return status, json.loads(told.out) if told.out else told.err


@pytest.mark.usefixtures("site")
def test_compare_says_by_its_exit_status_whether_something_regressed(
    owner: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    published(owner, "v1", {"a": P, "b": F})
    build(owner, claimed(owner, "v2"), {"a": F, "b": F})
    build(owner, claimed(owner, "v3"), {"a": P, "b": P})
    status, found = ask(capsys, "release", "compare", "hello", "v2")
    assert (status, found["regressed"], found["against"]["ref"]) == (1, True, "v1")
    assert list(found) == [
        "product",
        "against",
        "release",
        "regressed",
        "counts",
        "targets",
        "phases",
        "steps",
        "cases",
    ]
    assert list(found["counts"]) == [
        *("regressed", "fixed", "still failing", "flaky", "new", "gone", "slower", "same"),
    ]
    assert list(found["cases"][0]) == [
        *("target", "phase", "step", "name", "change", "before", "now", "seconds_before", "seconds", "message"),
    ]
    status, found = ask(capsys, "release", "compare", "hello", "v1", "v3", "--all")
    assert (status, [case["change"] for case in found["cases"]]) == (0, ["fixed", "same"])
    assert cli.run(["release", "compare", "hello", "v2"]) == 1
    assert "v2 since v1: 1 regressed, 1 still failing" in capsys.readouterr().out
    for bad in (["v1"], ["v9"], ["v1", "v9"], ["v1", "v2", "v3"]):
        status, told = ask(capsys, "release", "compare", "hello", *bad)
        assert (status, told.startswith("cleanroom: ")) == (2, True)


@pytest.mark.usefixtures("site")
def test_waive_and_show_on_the_command_line(
    owner: Database, upgraded: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("release", "waive", "hello", "v2", "phase:upgrade", "--reason", "known", "--expires")
    assert ask(capsys, *words, "tomorrow")[0] == 2
    assert ask(capsys, *words, "2031-01-31T12:00:00")[0] == 2  # in which zone?
    status, told = ask(capsys, *words, "2999-01-31T12:00:00Z")
    assert (status, told["waived"], told["state"]) == (0, "phase:upgrade", "passed")
    assert audit.list_latest(owner)[0].actor == getpass.getuser()
    assert cli.run(["release", "show", "hello", "v2"]) == 0
    shown = capsys.readouterr().out
    assert "phase:upgrade  debian-13/deb  waived" in shown
    assert "since v1:" in shown

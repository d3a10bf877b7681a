"""The history of one test case: pass rate, and since when it fails."""

from __future__ import annotations

import json

import pytest
from database_server import add_product
from recorded import Case, F, L, P, S, build, claimed

from cleanroom_base.errors import InputError
from cleanroom_db import histories
from cleanroom_db.connection import Database
from cleanroom_db.histories import History
from cleanroom_master import cli


@pytest.fixture(autouse=True)
def hello(owner: Database) -> None:
    add_product(owner)


def releases(owner: Database, *outcomes: Case | None) -> None:
    """Releases v0, v1, ... in which the case went so (None: it was not there)."""
    for number, outcome in enumerate(outcomes):
        build(owner, claimed(owner, f"v{number}"), {} if outcome is None else {"greets 'you' %": outcome})


def one(owner: Database) -> History:
    [found] = histories.history(owner, "hello", "greets 'you' %")
    return found


def test_a_case_fails_since_the_first_of_its_latest_failures(owner: Database) -> None:
    releases(owner, F, P, P, F, S, None, F)
    found = one(owner)
    assert found.failing_since is not None
    assert found.failing_since.ref == "v3"  # what did not run is no news
    assert found.pass_rate == pytest.approx(2 / 5)
    assert [run.ref for run in found.runs] == ["v6", "v4", "v3", "v2", "v1", "v0"]


@pytest.mark.parametrize(("outcomes", "rate"), [((F, P), 0.5), ((F, L), 0.0), ((S,), None), ((P, P), 1.0)])
def test_what_does_not_fail_now_fails_since_nothing(
    owner: Database, outcomes: tuple[Case, ...], rate: float | None
) -> None:
    releases(owner, *outcomes)
    assert one(owner).failing_since is None
    assert one(owner).pass_rate == rate


def test_targets_and_channels_are_told_apart(owner: Database) -> None:
    both = claimed(owner, "v1", "debian-12/deb", "debian-13/deb")
    build(owner, both, {"a": P})
    build(owner, both, {"a": F})
    build(owner, claimed(owner, "v2", channel="snapshots"), {"a": F})
    found = histories.history(owner, "hello", "a")
    assert [(each.target, each.pass_rate) for each in found] == [("debian-12/deb", 0.5), ("debian-13/deb", 0.0)]
    [first, _] = histories.history(owner, "hello", "a", channel="testing")
    assert first.pass_rate == 1.0


def test_what_nobody_knows_is_bad_input(owner: Database) -> None:
    releases(owner, P)
    with pytest.raises(InputError, match="no release of hello has a test 'nonsense'"):
        histories.history(owner, "hello", "nonsense")
    with pytest.raises(InputError, match="other"):
        histories.history(owner, "other", "a")


def test_a_case_is_found_by_the_index_among_many(owner: Database) -> None:
    releases(owner, P)
    with owner.transaction() as cursor:
        cursor.execute(
            "INSERT INTO cleanroom.test_case (phase_id, step, name, outcome)"
            " SELECT phase_id, step, repeat('x', 3000) || n, 'passed'"
            " FROM cleanroom.test_case, generate_series(1, 5000) n"
        )
        cursor.execute("ANALYZE cleanroom.test_case")
        block = histories._SQL["runs"]
        lines = cursor.rows(f"EXPLAIN {block}", product="hello", name="x", channel=None, releases=10)
    assert any("test_case_name" in line["QUERY PLAN"] for line in lines)


def test_history_on_the_command_line(owner: Database, site: None, capsys: pytest.CaptureFixture[str]) -> None:
    releases(owner, P, F)
    assert cli.run(["test", "history", "hello", "greets 'you' %", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["product", "name", "histories"]
    [found] = told["histories"]
    assert list(found) == ["target", "phase", "step", "pass_rate", "flaky_rate", "failing_since", "runs"]
    assert list(found["failing_since"]) == ["ref", "commit", "version"]
    assert list(found["runs"][0]) == [
        *("ref", "commit", "version", "channel", "outcome", "seconds", "message", "finished_at", "line"),
        *("runs", "failures"),
    ]
    assert cli.run(["test", "history", "hello", "greets 'you' %"]) == 0
    shown = capsys.readouterr().out
    assert "passed in 50% of its runs" in shown
    assert "failing since v1 (commit " in shown
    assert cli.run(["test", "history", "hello", "nonsense"]) == 2

"""Comparison of two releases: kinds, bases, bad input."""

from __future__ import annotations

import itertools

import pytest
from database_server import add_product
from recorded import F, L, P, S, build, claimed, published

from cleanroom_base.errors import InputError
from cleanroom_db import comparisons
from cleanroom_db.comparisons import Change, change_of
from cleanroom_db.connection import Database
from cleanroom_db.view import release_view
from cleanroom_recipes.model import Outcome


@pytest.fixture(autouse=True)
def hello(owner: Database) -> None:
    add_product(owner)


def kinds(found: comparisons.Comparison) -> dict[str, str]:
    return {case.name: str(case.change) for case in found.cases}


def test_what_became_of_each_case(owner: Database) -> None:
    published(owner, "v1", {"stays": P, "breaks": P, "mended": F, "bad": F, "gone": P, "off": F})
    release = claimed(owner, "v2")
    build(owner, release, {"stays": P, "breaks": F, "mended": P, "bad": F, "added": F, "off": S})
    found = comparisons.compare(owner, "hello", "v2", "v1")
    assert kinds(found) == {
        "breaks": "regressed",
        "mended": "fixed",
        "bad": "still failing",
        "added": "new",
        "gone": "gone",
        "off": "gone",  # a failing test that is skipped is not a fixed one
    }
    assert found.regressed
    assert {change: found.count(change) for change in Change if found.count(change)} == {
        Change.REGRESSED: 1,
        Change.FIXED: 1,
        Change.STILL_FAILING: 1,
        Change.NEW: 1,
        Change.GONE: 2,
        Change.SAME: 1,
    }
    [added] = [case for case in found.cases if case.name == "added"]
    assert (added.before, added.now, added.phase, added.step) == (None, "failed", "regress", "tests")
    everything = comparisons.compare(owner, "hello", "v2", "v1", all_cases=True)
    assert kinds(everything)["stays"] == "same"


def test_sql_and_python_agree_on_every_pair_of_outcomes(owner: Database) -> None:
    outcomes: list[Outcome | None] = [*Outcome, None]
    pairs = {f"{before}-{now}": (before, now) for before, now in itertools.product(outcomes, outcomes)}
    one = claimed(owner, "v1")
    build(owner, one, {name: before for name, (before, _) in pairs.items() if before is not None})
    two = claimed(owner, "v2")
    build(owner, two, {name: now for name, (_, now) in pairs.items() if now is not None})
    found = kinds(comparisons.compare(owner, "hello", "v2", "v1", all_cases=True))
    expected = {name: str(change_of(*pair)) for name, pair in pairs.items() if pair != (None, None)}
    assert found == expected


def test_of_two_cases_of_one_name_the_worst_counts(owner: Database) -> None:
    published(owner, "v1", {"one": P})
    build(owner, claimed(owner, "v2"), {"one": P})
    with owner.transaction() as cursor:
        cursor.execute(
            "INSERT INTO cleanroom.test_case (phase_id, step, name, outcome)"
            " SELECT phase_id, step, name, 'failed' FROM cleanroom.test_case ORDER BY id DESC LIMIT 1"
        )
    assert kinds(comparisons.compare(owner, "hello", "v2", "v1")) == {"one": "regressed"}


def test_a_case_is_slower_when_its_earlier_runs_say_so(owner: Database) -> None:
    for number, seconds in enumerate((2.0, 2.1, 9.0, 1.9)):  # one slow run is an outlier
        published(owner, f"v1.{number}", {"calm": (P, seconds), "grows": (P, seconds), "quick": (P, 0.01)})
    build(owner, claimed(owner, "v2"), {"calm": (P, 2.4), "grows": (P, 4.0), "quick": (P, 0.3)})
    found = comparisons.compare(owner, "hello", "v2")
    assert kinds(found) == {"grows": "slower"}
    assert (found.count(Change.SLOWER), found.count(Change.SAME)) == (1, 2)
    assert not found.regressed


def test_two_earlier_runs_say_nothing_of_times(owner: Database) -> None:
    for number in range(2):
        published(owner, f"v1.{number}", {"one": (P, 1.0)})
    build(owner, claimed(owner, "v2"), {"one": (P, 100.0)})
    assert kinds(comparisons.compare(owner, "hello", "v2")) == {}


def test_a_phase_regresses_too(owner: Database) -> None:
    published(owner, "v1")
    build(owner, claimed(owner, "v2"), failing={"upgrade": "the service did not come up"})
    found = comparisons.compare(owner, "hello", "v2")
    assert found.regressed
    assert [(part.phase, part.why) for part in found.phases if part.change is Change.REGRESSED] == [
        ("upgrade", "the service did not come up")
    ]
    assert [(part.phase, part.step) for part in found.steps if part.change is Change.REGRESSED] == [
        ("upgrade", "upgrade")
    ]


def test_targets_that_only_one_has_are_named_and_compare_nothing(owner: Database) -> None:
    published(owner, "v1", {"one": P}, "debian-11/deb", "debian-12/deb")
    release = claimed(owner, "v2", "debian-12/deb", "debian-13/deb")
    build(owner, release, {"one": F})
    build(owner, release, {"one": F})
    found = comparisons.compare(owner, "hello", "v2", "v1")
    assert (found.both, found.only_before, found.only_now) == (
        ("debian-12/deb",),
        ("debian-11/deb",),
        ("debian-13/deb",),
    )
    assert [(case.target, case.name) for case in found.cases] == [("debian-12/deb", "one")]


def test_the_base_is_the_last_published_release_of_the_channel(owner: Database) -> None:
    published(owner, "v1", {"one": P})
    published(owner, "elsewhere", {"one": P}, channel="snapshots")
    build(owner, claimed(owner, "v2"), {"one": F}, failing={"regress": "one failed"})
    release = claimed(owner, "v3")
    build(owner, release, {"one": F}, failing={"regress": "one failed"})
    found = comparisons.compare(owner, "hello", "v3")
    assert (found.against.ref, kinds(found)) == ("v1", {"one": "regressed"})
    with owner.transaction() as cursor:
        before = comparisons.base_of(cursor, found.release, "debian-12/deb", comparisons.Base.PREVIOUS)
    assert before is not None
    assert before.ref == "v2"


def test_an_attempt_that_the_surroundings_spoiled_is_not_compared(owner: Database) -> None:
    published(owner, "v1", {"one": P})
    release = claimed(owner, "v2")
    build(owner, release, {"one": F}, outcome=Outcome.INFRASTRUCTURE)
    with pytest.raises(InputError, match="no build of hello v2 has ended yet"):
        comparisons.compare(owner, "hello", "v2")


@pytest.mark.parametrize(
    ("product", "refs", "message"),
    [
        ("hello", ("v9", "v1"), "there is no release of hello v9"),
        ("hello", ("v1", "v9\x1b[2J"), "there is no release"),
        ("other", ("v1", "v1"), "there is no release of other v1"),
        ("hello", ("v1", None), "the channel testing has no other release of hello yet"),
    ],
)
def test_bad_input(owner: Database, product: str, refs: tuple[str, str | None], message: str) -> None:
    published(owner, "v1", {"one": L})
    add_product(owner, "other")
    with pytest.raises(InputError, match=message):
        comparisons.compare(owner, product, *refs)


def outcomes(owner: Database, ref: str) -> tuple[str, str, dict[str, str]]:
    """The outcome and the reason of a release's build, and the outcomes of its phases."""
    [built] = release_view(owner, "hello", ref)["builds"]
    return built["outcome"], built["why"], {phase["name"]: phase["outcome"] for phase in built["phases"]}


def test_a_build_names_what_regressed(owner: Database, master: Database) -> None:
    published(owner, "v1", {"a": P, "b": P, "c": P, "bad": F})
    cases = {"a": F, "b": F, "c": P, "bad": F}
    build(owner, claimed(owner, "v2"), cases, failing={"regress": "tests failed"}, writer=master)
    outcome, why, phases = outcomes(owner, "v2")
    assert (outcome, why) == ("regressed", "regress: 2 of 4 tests regressed since v1: a, b")
    assert phases == {"build": "passed", "install": "passed", "upgrade": "passed", "regress": "regressed"}


def test_a_failure_of_what_failed_before_stays_a_failure(owner: Database) -> None:
    published(owner, "v1", {"a": P, "bad": F})
    build(owner, claimed(owner, "v2"), {"a": P, "bad": F}, failing={"regress": "bad failed"})
    assert outcomes(owner, "v2")[:2] == ("failed", "regress: bad failed")


def test_what_failed_before_the_tests_is_told_first(owner: Database) -> None:
    published(owner, "v1", {"a": P})
    build(owner, claimed(owner, "v2"), {"a": F}, failing={"install": "no such file", "regress": "a failed"})
    assert outcomes(owner, "v2")[1] == "install: no such file; regress: 1 of 1 tests regressed since v1: a"


def test_a_sentence_holds_few_and_short_names(owner: Database) -> None:
    names = [letter * 200 for letter in "abcd"]
    published(owner, "v1", dict.fromkeys(names, P))
    build(owner, claimed(owner, "v2"), dict.fromkeys(names, F), failing={"regress": "all failed"})
    why = outcomes(owner, "v2")[1]
    assert len(why) < 400
    assert why.endswith(f"{'c' * 80}..., ...")

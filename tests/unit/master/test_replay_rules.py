"""How often a phase is run again whose tests failed, how, and what that says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cleanroom_master.replays import SPOILED, Ended, alone, following, verdict
from cleanroom_recipes import loader
from cleanroom_recipes.model import Outcome, Report, Target
from cleanroom_recipes.plan import PhasePlan, plan

P, F, X = Outcome.PASSED, Outcome.FAILED, Outcome.INFRASTRUCTURE


def ended(*outcomes: Outcome, alone: bool = False) -> list[Ended]:
    return [Ended(outcome, f"{outcome} here", 10.0, alone) for outcome in outcomes]


@pytest.mark.parametrize(
    ("before", "changes", "is_next"),
    [
        ([], {}, False),
        ([], {"isolates": True}, True),
        ([F, F], {"isolates": True}, False),  # the last is whole
        ([], {"isolates": True, "times": 1}, False),
        ([P], {}, False),  # flaky is known by now; the rate is wanted
        ([F, F, F], {}, None),
        ([X, F, F], {}, False),  # what is spoiled counts for neither
        ([X, F, F, F], {}, None),
        ([X] * SPOILED, {}, False),
        ([X] * (SPOILED + 1), {}, None),
        ([F], {"budget": 20.0}, False),
        ([F], {"budget": 19.0}, None),
        ([], {"budget": 9.0}, None),
        ([], {"times": 0}, None),
    ],
)
def test_what_follows(before: list[Outcome], changes: dict[str, object], is_next: bool | None) -> None:
    how = {"times": 3, "isolates": False, "budget": 1000.0} | changes
    assert following(10.0, ended(*before), **how) is is_next


@pytest.mark.parametrize(
    ("outcomes", "outcome", "why", "runs", "failures"),
    [
        ([F, F, F], F, "no; failed 4 of 4 times", 4, 4),
        ([P, F, P], Outcome.FLAKY, "flaky: 2 of 4 runs failed (no)", 4, 2),
        ([X, P], Outcome.FLAKY, "flaky: 1 of 2 runs failed (no)", 2, 1),
        ([X, F], F, "no; failed 2 of 2 times", 2, 2),
        ([X, X, X], F, "no; it could not be replayed: infrastructure here", None, None),
        ([], F, "no; it could not be replayed in its time", None, None),
    ],
)
def test_what_replays_say(
    outcomes: list[Outcome], outcome: Outcome, why: str, runs: int | None, failures: int | None
) -> None:
    found = verdict("no", ended(*outcomes))
    assert (found.outcome, found.why, found.runs, found.failures) == (outcome, why, runs, failures)


def test_tests_that_could_not_be_run_alone_are_not_tried_so_again() -> None:
    spoiled = ended(X, alone=True)
    assert following(10.0, spoiled, times=3, isolates=True, budget=1000.0) is False


def test_a_test_that_fails_only_with_the_others_says_so() -> None:
    found = verdict("no", [*ended(P, P, alone=True), *ended(F)])
    assert found.why == "flaky: 2 of 4 runs failed, alone 0 of 2 (no)"


def phase(name: str, more: str = "") -> PhasePlan:
    content = f'name = "x"\nurl = "file:///x"\nbuilder = "deb"\n{more}'.encode()
    phases = plan(loader.load(content, source="x"), Target.parse("debian-12/deb"))
    return next(one for one in phases if one.name == name)


def test_the_failed_tests_of_a_package_run_alone_after_what_prepares_them() -> None:
    whole = phase("regress", 'tests = ["true", "false"]\n')
    smaller = alone(whole, {"autopkgtest": ["first", "second-2.0"]})
    assert smaller is not None
    assert [step.name for step in smaller.steps] == ["update", "unpack", "repository", "install", "autopkgtest"]
    assert smaller.steps[-1].environment["CLEANROOM_TESTS"] == "first second-2.0"
    smaller = alone(whole, {"test-2": ["test-2"]})
    assert smaller is not None
    assert [step.name for step in smaller.steps][-2:] == ["install", "test-2"]


@pytest.mark.parametrize("names", [["--setup-commands=reboot"], ["a b"], ["*"], ["x"] * 101])
def test_what_cannot_be_named_to_a_harness_is_run_whole(names: list[str]) -> None:
    assert alone(phase("regress"), {"autopkgtest": names}) is None


def test_a_build_is_run_again_as_a_whole() -> None:
    assert alone(phase("build"), {"build": ["x"]}) is None
    only = phase("regress", 'tests = ["true"]\n')
    one = replace(only, steps=tuple(step for step in only.steps if step.tests is not Report.AUTOPKGTEST))
    assert alone(one, {"test-1": ["test-1"]}) is None

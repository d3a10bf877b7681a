"""What a probe says of its candidate, and what is read from the lists of packages that builds leave."""

from __future__ import annotations

from typing import Any

import pytest

from cleanroom_base.errors import InputError
from cleanroom_db.bisections import Criterion, Seen
from cleanroom_db.states import Verdict
from cleanroom_master.bisection.candidates import changes, installed
from cleanroom_master.bisection.driver import phases_up_to
from cleanroom_master.bisection.verdicts import judge
from cleanroom_recipes import loader
from cleanroom_recipes.model import Outcome, Target
from cleanroom_recipes.plan import plan

P, F, S, L, LOST = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED, Outcome.FLAKY, Outcome.INFRASTRUCTURE
CASE, STEP, PHASE = Criterion("regress", None, "a test"), Criterion("build", "compile"), Criterion("build")


def seen(outcome: Outcome = P, **told: Any) -> Seen:
    nothing = dict.fromkeys(
        (
            "phase_outcome",
            "phase_why",
            "step_outcome",
            "step_why",
            "case_outcome",
            "case_message",
            "case_seconds",
            "case_line",
        )
    )
    return Seen(
        **{
            "attempt": 1,
            "outcome": outcome,
            "why": "",
            "log_sha256": None,
            "packages_why": None,
            "image_digests": (),
            **nothing,
            **told,
        }
    )


@pytest.mark.parametrize(
    ("criterion", "told", "verdict", "why"),
    [
        (CASE, seen(P, case_outcome=P), Verdict.GOOD, ""),
        (CASE, seen(F, case_outcome=F, case_message="41"), Verdict.BAD, "41"),
        # Another test fails, this one passes.
        (CASE, seen(F, phase_outcome=F, case_outcome=P), Verdict.GOOD, ""),
        (CASE, seen(P, case_outcome=S), Verdict.SKIPPED, "regress: a test is skipped"),
        (CASE, seen(P, case_outcome=L), Verdict.SKIPPED, "regress: a test is flaky"),
        (CASE, seen(P, phase_outcome=P), Verdict.SKIPPED, "there is no test a test"),
        (CASE, seen(F, why="build: no compiler"), Verdict.SKIPPED, "there is no test a test; build: no compiler"),
        (CASE, seen(LOST, why="a guest was lost", case_outcome=F), Verdict.SKIPPED, "infrastructure: a guest was lost"),
        (CASE, seen(Outcome.CANCELLED, why="no"), Verdict.SKIPPED, "cancelled: no"),
        (STEP, seen(F, step_outcome=F, step_why="status 2"), Verdict.BAD, "status 2"),
        # A later step fails for another reason.
        (STEP, seen(F, phase_outcome=F, step_outcome=P), Verdict.GOOD, ""),
        (STEP, seen(F, phase_outcome=F, phase_why="no apt"), Verdict.SKIPPED, "the step compile did not run; no apt"),
        (PHASE, seen(F, phase_outcome=F, phase_why="status 2"), Verdict.BAD, "status 2"),
        (
            PHASE,
            seen(P, phase_outcome=S, phase_why="nothing to do"),
            Verdict.SKIPPED,
            "build is skipped: nothing to do",
        ),
        (PHASE, seen(F, phase_outcome=F, packages_why="make is gone"), Verdict.SKIPPED, "make is gone"),
    ],
)
def test_a_verdict_is_never_guessed(criterion: Criterion, told: Seen, verdict: Verdict, why: str) -> None:
    assert judge(criterion, told) == (verdict, why)


def test_a_probe_that_ran_on_another_image_is_no_probe_of_this_one() -> None:
    told = seen(P, case_outcome=P, image_digests=("a" * 64,))
    assert judge(CASE, told, "a" * 64) == judge(CASE, told) == (Verdict.GOOD, "")
    assert judge(CASE, told, "b" * 64) == (Verdict.SKIPPED, "its guests started from another image: aaaaaaaaaaaa")


def test_the_packages_of_a_build_are_read() -> None:
    content = (
        b"Format: 1.0\nInstalled-Build-Depends:\n gcc (= 4:12.2.0-3),\n libc6:amd64 (= 2.36-9+deb12u4)\nPath: /x\n"
    )
    assert installed(content) == {"gcc": "4:12.2.0-3", "libc6": "2.36-9+deb12u4"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"Installed-Build-Depends: gcc (= $(reboot))\n", "no valid version"),
        (b"Installed-Build-Depends: -o=x (= 1)\n", "no package with its version"),
        (b"Installed-Build-Depends: gcc (>= 1)\n", "no package with its version"),
        (b"Format: 1.0\n", "lists 0 packages"),
        (b"\xff\xfe", "not UTF-8"),
        (b"Installed-Build-Depends: " + b", ".join(b"p%05d (= 1)" % n for n in range(6000)) + b"\n", "6000 packages"),
    ],
)
def test_a_list_from_a_guest_is_checked(content: bytes, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        installed(content)


def test_changes_are_told_in_words_and_not_endlessly() -> None:
    assert changes({"a": "1", "b": "1"}, {"a": "2", "c": "1"}) == "a 1 -> 2, b 1 -> gone, c new -> 1"
    many = {f"p{number}": "1" for number in range(9)}
    assert changes({}, many).endswith("and 6 more")


def test_only_the_phases_that_a_verdict_needs_are_run() -> None:
    recipe = loader.load(b'builder = "deb"\n', source="the recipe", name="x", url="file:///x")
    plans = plan(recipe, Target.parse("debian-12/deb"))
    assert phases_up_to(plans, "regress") == ["build", "regress"]
    assert phases_up_to(plans, "build") == ["build"]
    with pytest.raises(InputError, match="no phase other"):
        phases_up_to(plans, "other")

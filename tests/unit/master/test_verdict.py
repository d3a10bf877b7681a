"""The verdict on an attempt from its phases, and the demonstration's time line."""

from __future__ import annotations

from datetime import UTC, datetime
from types import MappingProxyType

import pytest

from cleanroom_db.attempts import Lease
from cleanroom_db.releases import Release
from cleanroom_db.states import ReleaseState
from cleanroom_master.demo import time_line
from cleanroom_master.dispatch import Job
from cleanroom_recipes import loader
from cleanroom_recipes.conditions import Conditions
from cleanroom_recipes.model import Outcome, RefKind, Target
from cleanroom_recipes.plan import plan

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
RECIPE = loader.load(b'builder = "deb"\n', source="the recipe", name="hello", url="https://example.org/hello.git")
P, S, F, R, C, L, X = (
    Outcome.PASSED,
    Outcome.SKIPPED,
    Outcome.FAILED,
    Outcome.REGRESSED,
    Outcome.CANCELLED,
    Outcome.FLAKY,
    Outcome.INFRASTRUCTURE,
)


def job(*outcomes: Outcome) -> Job:
    """A job of three phases, of which some ended."""
    release = Release(
        1,
        "hello",
        "v1",
        "a" * 40,
        RefKind.TAG,
        None,
        ReleaseState.BUILDING,
        "",
        None,
        1,
        {},
        "",
        "testing",
        "x",
        NOW,
        None,
    )
    plans = {phase.name: phase for phase in plan(RECIPE, Target.parse("debian-12/deb"))[:3]}
    made = Job(Lease(1, "master"), release, Conditions(), "debian-12/deb", RECIPE, plans, 1)
    made.outcomes = {name: (outcome, f"why {name}") for name, outcome in zip(plans, outcomes, strict=False)}
    return made


@pytest.mark.parametrize(
    ("outcomes", "verdict", "why"),
    [
        ((P, P, P), P, ""),
        ((P, P, S), P, ""),
        ((P, F, P), F, "install: why install"),
        ((F,), F, "build: why build"),
        ((P, R, F), F, "upgrade: why upgrade"),
        ((P, R, P), R, "install: why install"),
        # Whatever the product did: what the surroundings spoiled proves nothing.
        ((P, F, X), X, "upgrade: why upgrade"),
        ((P, L, P), L, "install: why install"),
        ((P, C), C, "install: why install"),
        ((P,), X, "the build was interrupted before phase install"),
        ((), X, "the build was interrupted before phase build"),
    ],
)
def test_the_verdict(outcomes: tuple[Outcome, ...], verdict: Outcome, why: str) -> None:
    assert job(*outcomes).verdict() == (verdict, why)


def test_what_spoiled_the_attempt_before_its_phases_comes_first() -> None:
    spoiled = job(F)
    spoiled.spoiled = "the source could not be archived"
    assert spoiled.verdict() == (X, "the source could not be archived")


def test_a_job_is_not_told_in_full() -> None:
    # Buildbot writes it into its log for every step.
    assert repr(job()) == "<attempt 1 of hello v1 debian-12/deb>"


def test_the_time_line_says_where_the_time_went() -> None:
    def phase(name: str, reset: float | None, **steps: float) -> dict[str, object]:
        rows = [{"name": step, "seconds": seconds} for step, seconds in steps.items()]
        return {"name": name, "reset_seconds": reset, "steps": rows}

    view = {
        "product": "hello",
        "ref": "v1",
        "recorded_at": "2030-01-31T12:00:00Z",
        "claimed_at": "2030-01-31T12:00:00.500000Z",
        "finished_at": "2030-01-31T12:01:00Z",
        "published": [{"at": "2030-01-31T12:01:02Z"}],
        "canaries": [{"finished_at": "2030-01-31T12:01:12Z"}, {"finished_at": None}],
        "builds": [
            {
                "phases": [
                    phase("build", 1.0, update=5.0, dependencies=8.0, build=20.0, lint=2.0),
                    phase("regress", 2.0, update=5.0, autopkgtest=9.0),
                    phase("upgrade", None),
                ]
            }
        ],
    }
    assert time_line(MappingProxyType(view), 7.0) == {
        "release": "hello v1",
        "recorded": 0.5,
        "reset": 3.0,
        "update": 10.0,
        "dependencies": 8.0,
        "build": 22.0,
        "tests": 9.0,
        "published": 2.0,
        "installed": 7.0,
        "total": 62.0,
        "canary": 10.0,
    }

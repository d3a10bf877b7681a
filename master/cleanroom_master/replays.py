"""Whether a phase that failed by its tests always fails: how often it is run again, how, and what that says.

All here is pure. A replay starts from the same image, and before its tests the same packages are installed. One that
the surroundings spoiled, or that did not come to its tests, counts for neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cleanroom_db.phases import Replayed
from cleanroom_recipes.model import Outcome, Report
from cleanroom_recipes.plan import PhasePlan, StepPlan

# Replays of one phase that may be spoiled before it is left at that.
SPOILED = 2
# Tests that are named to a harness, and names that it can be given.
NAMED = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Replay:
    """One more run of a phase: its number, counted from 1, and the state that it must start from.

    `alone`: only the tests that failed; `image_digest`: of the image from which the first run's guest started;
    `installed`: of the packages that were there before its tests (None: that is not known).
    """

    number: int
    alone: bool
    image_digest: str
    installed: str | None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a replay ended."""

    outcome: Outcome
    why: str
    seconds: float
    alone: bool = False

    @property
    def counts(self) -> bool:
        """Whether it says something about the product."""
        return self.outcome in (Outcome.PASSED, Outcome.FAILED)


def following(
    first_seconds: float, replays: Sequence[Ended], *, times: int, isolates: bool, budget: float
) -> bool | None:
    """Whether the next replay is of the failed tests alone; None where there is to be none.

    All `times` replays are made, also when one has passed: the rate is wanted. With `isolates` the tests that failed
    can be run alone; the last replay is of the whole phase all the same, since tests may depend on each other. None
    begins that would make all of them together take longer than `budget` (seconds).
    """
    counted = sum(run.counts for run in replays)
    if counted >= times or len(replays) - counted > SPOILED:
        return None
    if sum(run.seconds for run in replays) + first_seconds > budget:
        return None
    # Tests that could not be run alone once are not tried so again.
    alone = isolates and all(run.counts for run in replays if run.alone)
    return alone and counted < times - 1


def verdict(why: str, replays: Sequence[Ended]) -> Replayed:
    """What became of a phase that failed because of `why`, by its replays."""
    counted = [run for run in replays if run.counts]
    if not counted:
        spoiled = f": {replays[-1].why}" if replays else " in its time"
        return Replayed(Outcome.FAILED, f"{why}; it could not be replayed{spoiled}", None, None)
    runs = 1 + len(counted)
    failures = 1 + sum(run.outcome is Outcome.FAILED for run in counted)
    if failures == runs:
        return Replayed(Outcome.FAILED, f"{why}; failed {runs} of {runs} times", runs, failures)
    alone = [run for run in counted if run.alone]
    of_these = f", alone {sum(run.outcome is Outcome.FAILED for run in alone)} of {len(alone)}" if alone else ""
    return Replayed(Outcome.FLAKY, f"flaky: {failures} of {runs} runs failed{of_these} ({why})", runs, failures)


def alone(plan: PhasePlan, failed: Mapping[str, Sequence[str]]) -> PhasePlan | None:
    """The phase with its failed tests only (their names, by step), after the steps that prepare them.

    None where its harness cannot be told which tests to run, or where that would be the whole phase.
    """
    steps: list[StepPlan] = []
    for step in plan.steps:
        if step.tests in (Report.NONE, Report.FILES) and step.name not in failed:
            steps.append(step)
        elif step.name in failed:
            only = _only(step, failed[step.name])
            if only is None:
                return None
            steps.append(only)
    smaller = replace(plan, steps=tuple(steps), makes_artifacts=False)
    return None if plan.makes_artifacts or smaller.steps == plan.steps else smaller


def _only(step: StepPlan, names: Sequence[str]) -> StepPlan | None:
    if step.tests is Report.COMMAND:
        return step
    nameable = len(names) <= NAMED and all(_NAME.fullmatch(name) for name in names)
    if step.tests is not Report.AUTOPKGTEST or not nameable:
        return None
    return replace(step, environment={**step.environment, "CLEANROOM_TESTS": " ".join(names)})

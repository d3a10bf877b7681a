"""A request for a bisection: checked as a whole, then written down; the master does the rest."""

from __future__ import annotations

from dataclasses import dataclass

from cleanroom_base.errors import InputError, Problem
from cleanroom_base.settings import Settings
from cleanroom_db import bisections, histories, products, releases
from cleanroom_db.bisections import Criterion, NewBisection, NewCandidate
from cleanroom_db.connection import Database
from cleanroom_db.histories import History
from cleanroom_db.products import Product
from cleanroom_db.releases import Release
from cleanroom_db.states import BisectionAxis
from cleanroom_master.bisection import candidates
from cleanroom_master.planning import CHANNELS, Planner
from cleanroom_master.refs import history
from cleanroom_recipes.model import Outcome, Recipe, RefKind, Target
from cleanroom_recipes.plan import plan

MOST_AT_ONCE = 16
MOST_RUNS = 100
_FAILING = (Outcome.FAILED, Outcome.REGRESSED, Outcome.FLAKY)


@dataclass(frozen=True)
class Wish:
    """What a person asks for. None: the default, which is found in the record.

    `at` is what is built where not commits are searched.
    """

    product: str
    good: str
    bad: str
    axis: BisectionAxis = BisectionAxis.COMMIT
    test: str | None = None
    phase: str | None = None
    target: str | None = None
    at: str | None = None
    runs: int = 1
    parallel: int | None = None
    requested_by: str = "sql"


def start(settings: Settings, database: Database, wish: Wish) -> int:
    """Have a bisection made; returns its id. The ends are verified before anything else is probed.

    Raises InputError, InfrastructureError when the repository is away.
    """
    return bisections.request(database, prepare(settings, database, wish))


def prepare(settings: Settings, database: Database, wish: Wish) -> NewBisection:
    """The bisection that is asked for, with its candidates. Raises as `start`."""
    product = products.get(database, wish.product)
    parallel = min(settings.whole("worker.parallel"), MOST_AT_ONCE) if wish.parallel is None else wish.parallel
    _check_numbers(wish, parallel)
    commits = _commits(settings, database, product, wish)
    release = _release(database, wish.product, wish.bad)
    recipe = Planner(settings).recipe_at(commits[-1], product)
    target, criterion = _criterion(database, wish, release, recipe)
    builds = {phase.name for phase in plan(recipe, target) if phase.makes_artifacts}
    tested = None if criterion.phase in builds else criterion.phase
    found = _candidates(settings, database, wish, target, commits, tested)
    return NewBisection(
        product.name,
        str(target),
        wish.axis,
        wish.good,
        wish.bad,
        release.channel if release is not None else CHANNELS[RefKind.TAG],
        criterion,
        found,
        wish.requested_by,
        wish.runs,
        parallel,
    )


def _check_numbers(wish: Wish, parallel: int) -> None:
    problems = [
        Problem(option, f"must be from 1 to {most}")
        for option, value, most in (("--runs", wish.runs, MOST_RUNS), ("--parallel", parallel, MOST_AT_ONCE))
        if not 1 <= value <= most
    ]
    if wish.at is not None and wish.axis is BisectionAxis.COMMIT:
        problems.append(Problem("--at", "is for the axes image and dependencies: here the commits are searched"))
    if problems:
        raise InputError("this cannot be bisected", problems=problems)


def _commits(settings: Settings, database: Database, product: Product, wish: Wish) -> list[str]:
    """The commits that are named, the one whose recipe counts last. Raises InputError with all problems."""
    wanted = (
        [("--good", wish.good), ("--bad", wish.bad)]
        if wish.axis is BisectionAxis.COMMIT
        else [("--at" if wish.at is not None else "--bad", wish.at or wish.bad)]
    )
    found: list[str] = []
    problems: list[Problem] = []
    for option, ref in wanted:
        try:
            release = _release(database, product.name, ref)
            found.append(
                release.commit if release is not None else history.resolve(settings, product.name, product.url, ref)
            )
        except InputError as error:
            problems.append(Problem(option, error.message))
    if problems:
        hint = (
            "--at names what is built, where --bad is a time or an image"
            if wish.axis is not BisectionAxis.COMMIT
            else None
        )
        raise InputError(f"this cannot be bisected in {product.name}", problems=problems, hint=hint)
    return found


def _candidates(
    settings: Settings, database: Database, wish: Wish, target: Target, commits: list[str], tested: str | None
) -> list[NewCandidate]:
    """What is searched; `tested` is the phase that is judged where that builds nothing."""
    ends = (wish.good, wish.bad)
    match wish.axis:
        case BisectionAxis.COMMIT:
            return candidates.commits(settings, wish.product, *commits)
        case BisectionAxis.IMAGE:
            return candidates.images(settings, database, wish.product, commits[-1], target.image, ends)
        case BisectionAxis.DEPENDENCIES:
            return candidates.package_states(settings, database, wish.product, commits[-1], str(target), ends, tested)


def _release(database: Database, product: str, ref: str) -> Release | None:
    try:
        return releases.find(database, product, ref)
    except InputError:
        return None


def _criterion(database: Database, wish: Wish, release: Release | None, recipe: Recipe) -> tuple[Target, Criterion]:
    """On which target, and by what a candidate is judged. Raises InputError."""
    targets = {str(target): target for target in recipe.targets}
    if wish.target is not None and wish.target not in targets:
        raise InputError(
            f"the recipe of {wish.product} has no target {wish.target[:100]!r}",
            hint=f"its targets: {', '.join(targets)}",
        )
    if wish.phase is not None:
        name, criterion = wish.target or next(iter(targets)), Criterion(wish.phase, None, wish.test)
    elif wish.test is not None:
        name, criterion = _by_test(database, wish)
    else:
        name, criterion = _by_failure(database, wish, release)
    if name not in targets:
        raise InputError(f"the recipe of {wish.product} has no target {name} any more", hint="--target names another")
    phases = [phase.name for phase in plan(recipe, targets[name])]
    if criterion.phase not in phases:
        raise InputError(f"{name} has no phase {criterion.phase[:100]!r}", hint=f"its phases: {', '.join(phases)}")
    return targets[name], criterion


def _by_test(database: Database, wish: Wish) -> tuple[str, Criterion]:
    """Where the record knows the test, and where it fails in the bad one if it does."""
    assert wish.test is not None
    try:
        found = histories.history(database, wish.product, wish.test)
    except InputError as error:
        raise InputError(error.message, hint="--phase names the phase of a test that no release has run yet") from error
    found = [one for one in found if wish.target in (None, one.target)]
    if not found:
        raise InputError(f"the test {wish.test[:200]!r} never ran on {wish.target}")

    def fails(one: History) -> tuple[bool, bool]:
        failing = [run for run in one.runs if run.outcome in _FAILING]
        return any(run.ref == wish.bad for run in failing), bool(failing)

    best = max(found, key=fails)
    return best.target, Criterion(best.phase, None, wish.test)


def _by_failure(database: Database, wish: Wish, release: Release | None) -> tuple[str, Criterion]:
    """Where the bad release fails."""
    failed = [] if release is None else bisections.failed_builds(database, release.id)
    failed = [one for one in failed if wish.target in (None, one.target)]
    if not failed:
        state = "was not built" if release is None else "fails in no phase, as far as is recorded"
        raise InputError(
            f"{wish.product} {wish.bad} {state}: what is looked for?",
            hint="name it by --test CASE or --phase PHASE",
        )
    first = failed[0]
    return first.target, Criterion(first.phase, first.step)

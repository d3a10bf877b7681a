"""Before a release goes out: which dependent products are tried with it, and as what trials."""

from __future__ import annotations

from dataclasses import replace

from cleanroom_base.errors import InputError
from cleanroom_base.settings import Settings
from cleanroom_db import dependencies, dependents, releases, trials
from cleanroom_db.connection import Cursor, Database
from cleanroom_db.dependents import Published
from cleanroom_db.products import Product
from cleanroom_db.ref_events import RefEvent
from cleanroom_db.releases import Plan, Planned, Release
from cleanroom_db.states import ReleaseState, TrialPurpose
from cleanroom_db.trials import NewTrial
from cleanroom_master.planning import Planner
from cleanroom_recipes.model import Gate, Recipe, RefKind, Target

_PHASES = ("regress",)
_PHASES_OF_REBUILD = ("build", "regress")


def demanding(plan: Plan, database: Database, limit: int) -> Plan:
    """The same plan, but a tag of a product on which others depend is to be tried with these before it goes out.

    A commit is only where its recipe or the site says so, and with a `limit` of 0 no release is.
    """
    known: list[frozenset[str]] = []

    def needed() -> frozenset[str]:
        if not known:
            known.append(frozenset(one.depends_on for one in dependencies.list_all(database)))
        return known[0]

    def plan_with_dependents(event: RefEvent, product: Product) -> Planned:
        planned = plan(event, product)
        if limit == 0 or event.kind is not RefKind.TAG or product.name not in needed():
            return planned
        return replace(planned, gates=tuple(dict.fromkeys((*planned.gates, str(Gate.DEPENDENTS)))))

    return plan_with_dependents


def choose_due(database: Database, planner: Planner, settings: Settings) -> None:
    """Have trials made for the releases that wait for the choice of their dependents."""
    with database.transaction() as cursor:
        waiting = dependents.waiting(cursor)
    for one in waiting:
        with database.transaction() as cursor:
            release = releases.lock(cursor, one.id)
            if release.state is ReleaseState.BUILDING and dependents.tried(cursor, one.id) is None:
                _choose(cursor, release, planner, settings.whole("master.dependents"))
                releases.judge_again(cursor, release)


def _choose(cursor: Cursor, release: Release, planner: Planner, limit: int) -> None:
    """The trials of a (locked) release: of the most depended-upon products first, each after those it depends on."""
    graph = dependencies.graph(cursor)
    names = graph.dependents(release.product)
    images = {Target.parse(target).image for target in dependents.targets(cursor, release.id)}
    found: dict[str, NewTrial] = {}
    for published in dependents.published(cursor, release.channel, names):
        trial = _trial(release, published, planner, images)
        if trial is not None:
            found[published.product] = trial
    by_weight = sorted(found, key=lambda name: (-len(graph.dependents(name)), graph.order.index(name)))
    chosen = sorted(by_weight[:limit], key=graph.order.index)
    ids = [trials.insert(cursor, found[name]) for name in chosen]
    dependents.choose(cursor, release.id, ids, by_weight[limit:])


def _trial(release: Release, published: Published, planner: Planner, images: set[str]) -> NewTrial | None:
    """A dependent's trial with a release; None where that was made for none of its images."""
    try:
        recipe = planner.recipe(published.recipe)
    except InputError:
        return None  # of a version of Cleanroom that took other recipes; its next release says more
    builds = builds_of(planner, recipe, published, _PHASES_OF_REBUILD if recipe.rebuild_with_dependencies else _PHASES)
    fitting = [(target, phases) for target, phases in builds if Target.parse(target).image in images]
    if not fitting:
        return None
    return NewTrial(
        TrialPurpose.DEPENDENT,
        published.product,
        published.ref,
        published.commit,
        published.kind,
        published.recipe,
        release.channel,
        fitting,
        "verdict",
        {},
        subject=release.id,
    )


def builds_of(
    planner: Planner, recipe: Recipe, published: Published, wanted: tuple[str, ...]
) -> list[tuple[str, tuple[str, ...]]]:
    """The targets of a published release with those of the wanted phases that it has there."""
    found = []
    for target in published.targets:
        phases = tuple(plan.name for plan in planner.phases(recipe, Target.parse(target)) if plan.name in wanted)
        if phases:
            found.append((target, phases))
    return found

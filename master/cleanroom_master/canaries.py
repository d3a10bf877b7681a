"""When a consumer installs what was published: as soon as consumers see it, as a trial of its own.

A trial is of one release in one channel, with an attempt for each client of each image: so what cannot be installed is
known by its name, whatever else came in the same generation, and what the surroundings spoil is tried again.
"""

from __future__ import annotations

from cleanroom_db import canaries, trials
from cleanroom_db.canaries import Client, Waiting
from cleanroom_db.connection import Database
from cleanroom_db.states import TrialPurpose
from cleanroom_db.trials import NewTrial, Trial
from cleanroom_recipes import canary
from cleanroom_recipes.model import Recipe, Target
from cleanroom_recipes.plan import PhasePlan

# So many are begun in one turn.
_AT_ONCE = 20


def begin_due(database: Database) -> int:
    """Begin a trial for each release that waits for one; returns how many."""
    waiting = canaries.waiting(database, limit=_AT_ONCE)
    for one in waiting:
        with database.transaction() as cursor:
            clients = canaries.clients(cursor, one)
            # Who left meanwhile has none.
            if clients:
                canaries.begin(cursor, one.place, trials.insert(cursor, _trial(one, clients)))
    return len(waiting)


def plans(database: Database, trial: Trial, recipe: Recipe, target: Target) -> dict[str, PhasePlan]:
    """What a trial's consumer does on a target, by phase."""
    wanted, earlier = (
        canaries.packages(database, trial.id, target.image, target.format.value, earlier=before)
        for before in (False, True)
    )
    return canary.phases(
        target,
        [(one.name, one.version, one.architecture) for one in wanted],
        [(one.name, one.version, one.architecture) for one in earlier],
        isolation=recipe.isolation,
        limits=recipe.limits,
    )


def _trial(one: Waiting, clients: list[Client]) -> NewTrial:
    return NewTrial(
        TrialPurpose.CANARY,
        one.product,
        one.ref,
        one.commit,
        one.kind,
        one.recipe,
        one.channel,
        [(client.target, canary.PHASES if client.upgrades else (canary.INSTALL,)) for client in clients],
        canaries.ACTOR,
        {},
        # Consumers have it already: before all other trials.
        priority=0,
    )

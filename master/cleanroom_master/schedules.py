"""Nights: when all that a channel publishes is tested again, and as what trials."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

from cleanroom_base.errors import InputError
from cleanroom_base.settings import Settings
from cleanroom_db import dependencies, dependents, nights, trials
from cleanroom_db.connection import Cursor, Database
from cleanroom_db.dependents import Published
from cleanroom_db.states import TrialPurpose
from cleanroom_db.trials import NewTrial
from cleanroom_master.dependents import builds_of
from cleanroom_master.planning import Planner

# Behind everything that somebody waits for.
PRIORITY = 9
_PHASES = ("install", "regress")


def run_due(database: Database, planner: Planner, settings: Settings, now: datetime) -> None:
    """Begin the nights whose time has come: each channel's once a day, after a pause of the master also late.

    A clock that goes back begins none again.
    """
    at = settings.optional("schedules.nightly")
    if at is None or now.astimezone(UTC).time() < time.fromisoformat(at):
        return
    today = now.astimezone(UTC).date()
    for channel in settings.words("schedules.channels"):
        last = nights.latest(database, channel)
        if last is None or last < today:
            begin(database, planner, channel, today, "schedule")


def begin(database: Database, planner: Planner, channel: str, night: date | None, requested_by: str) -> int | None:
    """Have all that a channel publishes tested; the night's id, None if it was begun before."""
    with database.transaction() as cursor:
        begun = nights.begin(cursor, channel, night, requested_by)
        if begun is not None:
            nights.set_trials(cursor, begun, _request(cursor, planner, channel, requested_by))
        return begun


def _request(cursor: Cursor, planner: Planner, channel: str, requested_by: str) -> list[int]:
    """A trial for the release of each product that the channel published last, in order of dependency."""
    place = {name: index for index, name in enumerate(dependencies.graph(cursor).order)}
    found = sorted(dependents.published(cursor, channel), key=lambda one: place.get(one.product, -1))
    wanted = [_trial(planner, one, channel, requested_by) for one in found]
    return [trials.insert(cursor, one) for one in wanted if one is not None]


def _trial(planner: Planner, published: Published, channel: str, requested_by: str) -> NewTrial | None:
    try:
        recipe = planner.recipe(published.recipe)
    except InputError:
        return None  # of a version of Cleanroom that took other recipes; its next release says more
    builds = builds_of(planner, recipe, published, _PHASES)
    if not builds:
        return None
    return NewTrial(
        TrialPurpose.NIGHTLY,
        published.product,
        published.ref,
        published.commit,
        published.kind,
        published.recipe,
        channel,
        builds,
        requested_by,
        {},
        priority=PRIORITY,
    )

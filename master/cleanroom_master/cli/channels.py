"""`cleanroom channel`: all that a channel publishes, tested again, and how that went night by night."""

from __future__ import annotations

import argparse
import getpass
from typing import Any

from cleanroom_base.errors import InputError
from cleanroom_db import nights
from cleanroom_db.nights import Changed, Night, Result
from cleanroom_master import schedules
from cleanroom_master.cli.frame import Commands, Context, printable, table
from cleanroom_master.planning import Planner
from cleanroom_recipes import names
from cleanroom_recipes.model import Outcome

_COLUMNS = ["started_at", "requested_by", "state", "passed", "failed", "open"]
_GOOD = (Outcome.PASSED, Outcome.SKIPPED)
_FAILED = (Outcome.FAILED, Outcome.REGRESSED, Outcome.FLAKY)


def register(commands: Commands) -> None:
    """Declare the verbs of `channel`."""
    channel = commands.noun("channel", "what a channel publishes, tested again")
    testing = channel.verb(
        "test",
        test,
        "test the last release of every product of a channel again, now",
        "cleanroom channel test testing",
        about="They run behind all other work. The setting schedules.nightly has it done every night.",
    )
    testing.add_argument("channel")
    showing = channel.verb(
        "history",
        history,
        "show how each night went, and what changed around what failed",
        "cleanroom channel history testing --format json",
    )
    showing.add_argument("channel")
    showing.add_argument("--limit", type=int, default=10, metavar="N", help="how many nights (default 10)")


def test(context: Context, arguments: argparse.Namespace) -> None:
    """Have all that a channel publishes tested."""
    _check(arguments.channel)
    planner = Planner(context.settings)
    schedules.begin(context.database, planner, arguments.channel, None, getpass.getuser())
    night = nights.history(context.database, arguments.channel, limit=1)[0]
    number = len(night.trials)
    told = f"{number} products of {night.channel} are tested again; 'cleanroom channel history' shows how that goes"
    context.emit(
        {"channel": night.channel, "trials": number},
        told if number else f"nothing is published in {night.channel} yet",
    )


def history(context: Context, arguments: argparse.Namespace) -> None:
    """Show the nights of a channel, newest first."""
    _check(arguments.channel)
    if arguments.limit < 1:
        raise InputError(f"--limit is {arguments.limit}: at least one night")
    found = nights.history(context.database, arguments.channel, limit=arguments.limit)
    views = [_view(night, nights.results(context.database, night)) for night in found]
    context.emit(views, "\n".join(_describe(views)) if views else f"{arguments.channel} was never tested as a whole")


def _check(channel: str) -> None:
    if not names.is_name(names.CHANNEL, channel):
        raise InputError(f"{channel[:100]!r} cannot be a channel's name", hint="for example: testing")


def _view(night: Night, results: list[Result]) -> dict[str, Any]:
    outcomes = [result.outcome for result in results]
    going_on = outcomes.count(None)
    failed = sum(outcome in _FAILED for outcome in outcomes)
    good = sum(outcome in _GOOD for outcome in outcomes)
    state = "running" if going_on else "failed" if failed else "passed" if good == len(outcomes) else "infrastructure"
    return {
        "channel": night.channel,
        "date": None if night.date is None else night.date.isoformat(),
        "started_at": night.started_at,
        "requested_by": night.requested_by,
        "state": state,
        "passed": good,
        "failed": failed,
        "open": going_on,
        "results": [_result(result) for result in results],
    }


def _result(result: Result) -> dict[str, Any]:
    parts = ("product", "ref", "target", "outcome", "why", "phase")
    changed = result.changed
    return {
        **{name: getattr(result, name) for name in parts},
        "changed": None if changed is None else _changed(changed),
    }


def _changed(changed: Changed) -> dict[str, Any]:
    def moved(one: Any) -> dict[str, str] | None:
        return None if one is None else {"name": one.name, "before": one.before, "now": one.now}

    return {
        "since": changed.since,
        "sentence": changed.sentence,
        "image": moved(changed.image),
        "release": moved(changed.release),
        "upgraded": [moved(one) for one in changed.upgraded],
        "added": changed.added,
        "removed": changed.removed,
        "packages_known": changed.known,
    }


def _describe(views: list[dict[str, Any]]) -> list[str]:
    lines = [table(views, _COLUMNS)]
    for view in views:
        for result in view["results"]:
            if result["outcome"] in (None, *_GOOD):
                continue
            changed = result["changed"]
            what = f"{result['product']} {printable(result['ref'])} {result['target']}"
            lines += ["", f"{view['started_at']:%Y-%m-%d %H:%M} {what}: {printable(result['why'])}"]
            lines += [f"  {printable(changed['sentence'])}"] if changed else []
    return lines

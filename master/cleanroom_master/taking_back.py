"""Taking back what is published: rollback to an earlier generation, and withdrawal of one release.

Both make a new generation with an actor and a reason. What a rollback takes away comes back by a rollback to a
generation that has it; what was withdrawn never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cleanroom_base.errors import InputError
from cleanroom_db import generations, publications, releases, requests
from cleanroom_db.connection import Database
from cleanroom_db.generations import Leaving
from cleanroom_db.requests import Request
from cleanroom_db.states import Removal, RequestState
from cleanroom_master.asking_back import Return, fixes, plan_rollback, require_insistence
from cleanroom_master.making import Change, make
from cleanroom_master.publish.repository import Repository


def rollback(database: Database, repository: Repository, request: Request) -> None:
    """Do what a request of this kind asks. Raises InputError when it cannot be done."""
    current = repository.current()
    if current is None or request.target is None:
        raise InputError("nothing is published yet")
    if request.target == current:
        raise InputError(f"generation {current} is the current one")
    if not repository.exists(request.target):
        raise InputError(
            f"generation {request.target} was collected: what it had is on the disk no more",
            hint="'cleanroom repository history' says which are kept",
        )
    plan = plan_rollback(database, current, request.target)
    fixed = fixes(plan.difference.releases_removed)
    require_insistence(fixed, forced=request.forced)
    why = f"taken back by {request.actor} (to generation {request.target}): {request.reason}"
    out = {package.id for package in plan.kept_out}
    result: dict[str, Any] = {
        "warnings": [f"takes back the security fix {fix}" for fix in fixed],
        "kept_out": [f"{one.name} {one.version} in {one.channel}" for one in plan.kept_out],
    }
    requests.note(database, request.id, "", result)
    make(
        database,
        repository,
        Change(
            actor=request.actor,
            reason=f"rollback to generation {request.target}: {request.reason}{_told(fixed)}",
            brought_back=[one for one in plan.difference.added if one.id not in out],
            removed=plan.difference.removed,
            returning=_returning(plan),
            leaving=[Leaving(Removal.ROLLBACK, why, tuple(one.id for one in plan.difference.releases_removed))],
            request=request.id,
            start=request.target,
            without=plan.kept_out,
        ),
    )


def _returning(plan: Return) -> list[tuple[int, str]]:
    withdrawn = {(one.release_id, one.channel) for one in plan.kept_out}
    return [one.key for one in plan.difference.releases_added if one.key not in withdrawn]


def withdraw(database: Database, repository: Repository, request: Request) -> None:
    """Do what a request of this kind asks. Raises InputError when it cannot be done."""
    assert request.release_id is not None
    release = releases.get(database, request.release_id)
    why = f"withdrawn by {request.actor}: {request.reason}"
    there = [one for one in generations.channels_of(database, release.id) if request.channel in (None, one.channel)]
    fixed = fixes(there)
    require_insistence(fixed, forced=request.forced)
    channels = [one.channel for one in there]
    name = f"{release.product} {release.ref}"
    with database.transaction():
        waiting = publications.withdraw_waiting(database, release.id, request.channel, why)
        if not there:
            if not waiting:
                raise InputError(f"{name} is in no channel{f' {request.channel}' if request.channel else ''}")
            requests.finish(database, request.id, RequestState.DONE, why, {"channels": waiting})
            return
    result = {"warnings": [f"withdraws the security fix {fix}" for fix in fixed], "channels": channels}
    requests.note(database, request.id, "", result)
    make(
        database,
        repository,
        Change(
            actor=request.actor,
            reason=f"withdraw {name} from {', '.join(channels)}: {request.reason}{_told(fixed)}",
            removed=generations.packages_of(database, release.id, channels),
            leaving=[Leaving(Removal.WITHDRAWAL, why, tuple(one.id for one in there))],
            request=request.id,
            withdrawing=release.id,
        ),
    )


def _told(fixed: Sequence[str]) -> str:
    return f" (takes security fixes back: {', '.join(fixed)})" if fixed else ""

"""Taking back what is published: rollback to an earlier generation, withdrawal of one release, and what consumers
could not install.

All make a new generation with an actor and a reason. What a rollback takes away comes back by a rollback to a
generation that has it, or where a person approves it; what was withdrawn never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cleanroom_base.errors import InputError
from cleanroom_db import canaries, generations, publications, releases, requests
from cleanroom_db.canaries import Failed
from cleanroom_db.connection import Database
from cleanroom_db.generations import Leaving
from cleanroom_db.requests import Request
from cleanroom_db.states import Removal, RequestState
from cleanroom_master.asking_back import fixes, require_insistence
from cleanroom_master.making import Change, make
from cleanroom_master.publish.repository import Repository

# So much of what a client said is told with what is taken out.
_WORDS = 600


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
    generations.get(database, request.target)
    way = generations.way_back(database, current, request.target)
    fixed = fixes(way.fixes)
    require_insistence(fixed, forced=request.forced)
    result: dict[str, Any] = {
        "warnings": [f"takes back the security fix {fix}" for fix in fixed],
        "kept_out": [f"{one.name} {one.version} in {one.channel}" for one in way.kept_out],
    }
    requests.note(database, request.id, "", result)
    make(
        database,
        repository,
        Change(
            actor=request.actor,
            reason=f"rollback to generation {request.target}: {request.reason}{_told(fixed)}",
            request=request.id,
            start=request.target,
            without=way.kept_out,
        ),
    )


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


def take_out_failed(database: Database, repository: Repository) -> int:
    """Take out what consumers could not install, in one generation; returns how many releases.

    All others stay, also those that came meanwhile: where nothing did, that is what the generation before had.
    """
    found = canaries.failed(database)
    if not found:
        return 0
    try:
        _take_out(database, repository, found)
    except InputError as error:
        # Whatever a client does not accept without it: it would be the same on the next turn.
        for one in found:
            canaries.give_up(database, one.place, str(error))
    return len(found)


def _take_out(database: Database, repository: Repository, found: Sequence[Failed]) -> None:
    removed = [package for one in found for package in generations.packages_of(database, one.release_id, [one.channel])]
    names = ", ".join(f"{one.product} {one.ref} from {one.channel}" for one in found)
    before = min(one.added_in for one in found) - 1
    back = _is_return(database, before, {(one.release_id, one.channel) for one in found})
    what = f"rollback to generation {before}: took {names} out" if back else f"took {names} out"
    leaving = {one.place for one in found}
    there = [place for one in found for place in generations.channels_of(database, one.release_id)]
    fixed = fixes(place for place in there if place.id in leaving)
    make(
        database,
        repository,
        Change(
            actor=canaries.ACTOR,
            reason=f"{what}{_told(fixed)}: {'; '.join(_words(one) for one in found)}",
            removed=removed,
            leaving=[
                Leaving(Removal.CANARY, f"taken back by its canary: {_words(one)}", (one.place,)) for one in found
            ],
        ),
    )


def _is_return(database: Database, before: int, leaving: set[tuple[int, str]]) -> bool:
    """Whether what leaves is all that changed since a generation."""
    current = generations.current(database)
    if current is None or before < 1:
        return False
    changed = generations.difference(database, before, current.number)
    return not changed.releases_removed and {one.key for one in changed.releases_added} == leaving


def _words(one: Failed) -> str:
    return f"{one.target}: {one.why}"[:_WORDS]


def _told(fixed: Sequence[str]) -> str:
    return f" (takes security fixes back: {', '.join(fixed)})" if fixed else ""

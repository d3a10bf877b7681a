"""When releases are looked at for conflicts: at their verdict, right before they leave, and when others changed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cleanroom_base.errors import InfrastructureError
from cleanroom_db import conflicts, gates, releases
from cleanroom_db.conflicts import Check, Place
from cleanroom_db.connection import Database
from cleanroom_db.states import GateState
from cleanroom_master.conflicts.check import Checker
from cleanroom_recipes.model import Gate

# In seconds: how often what nobody needs is forgotten, how long what could not be found out is left alone, how long
# contents are kept that nobody needs, and how long one look at what was published before may take.
_UPKEEP = 600.0
_PATIENCE = 300.0
_KEPT = 86_400.0
_READING = 0.5
# So many held releases are looked at again in one turn.
_AGAIN = 5


@dataclass(frozen=True, slots=True)
class Leaving:
    """A release that is about to go into a channel, and the targets it has packages for."""

    release: int
    channel: str
    targets: tuple[str, ...]


def look_at(database: Database, checker: Checker, release: int, channel: str, target: str) -> None:
    """Look at a release with those beside it, and record what was found. Raises InfrastructureError."""
    for check in checker.check(Place.of(channel, target), [release])[release]:
        conflicts.record(database, release, channel, check)


def hold_back(database: Database, checker: Checker, leaving: Sequence[Leaving]) -> dict[int, str]:
    """Of releases that are about to leave together those that may not, each with the reason.

    What was looked at before is not looked at again while nothing changed. Raises InfrastructureError.
    """
    demanding = [one for one in leaving if Gate.NO_CONFLICTS in releases.get(database, one.release).gates]
    for place in dict.fromkeys(Place.of(one.channel, target) for one in demanding for target in one.targets):
        _look_once(database, checker, place, [one for one in demanding if one.channel == place.channel])
    refused = {}
    for one in demanding:
        with database.transaction() as cursor:
            results = gates.evaluate_conflicts(cursor, one.release, one.channel)
        reasons = [result.why for result in results if result.state is GateState.FAILS]
        if reasons:
            refused[one.release] = "; ".join(reasons)
    return refused


class Upkeep:
    """What the master does about conflicts between builds; of what fails it leaves its hands for a while."""

    def __init__(self, database: Database, checker: Checker) -> None:
        self._database = database
        self._checker = checker
        self._next = 0.0
        self._unread = True
        self._later: dict[int, float] = {}

    def turn(self) -> None:
        """Read what was published before contents were recorded, look again at what is held, forget what is gone."""
        now = time.monotonic()
        if now >= self._next:
            self._next, self._unread = now + _UPKEEP, True
            conflicts.prune(self._database, _KEPT)
        if self._unread:
            self._unread = self._checker.read_published(_READING) > 0 and time.monotonic() - now > _READING
        waiting = [one for one in conflicts.held(self._database) if self._later.get(one[0], 0.0) <= now]
        for release, channel, targets in waiting[:_AGAIN]:
            try:
                self._again(release, channel, targets)
            except InfrastructureError:
                # It stays held, and says why; its surroundings are tried again later.
                self._later[release] = now + _PATIENCE

    def _again(self, release: int, channel: str, targets: Iterable[str]) -> None:
        """Judge a held release again where those that it was looked at with have changed."""
        changed = False
        for place in dict.fromkeys(Place.of(channel, target) for target in targets):
            changed = _look_once(self._database, self._checker, place, [Leaving(release, channel, ())]) or changed
        if changed:
            with self._database.transaction() as cursor:
                releases.judge_again(cursor, releases.lock(cursor, release))


def _look_once(database: Database, checker: Checker, place: Place, leaving: Sequence[Leaving]) -> bool:
    """Look at releases in a place, unless that was done and nothing changed since; whether it was done now."""
    ids = [one.release for one in leaving]
    checker.read_candidates(place, ids)
    basis = checker.look(place, ids).basis
    with database.transaction() as cursor:
        known = {one: conflicts.recorded(cursor, one, place.channel) for one in ids}
    if all(_holds(known[one.release], basis, place, one.targets) for one in leaving):
        return False
    for release, checks in checker.check(place, ids).items():
        for check in checks:
            conflicts.record(database, release, place.channel, check)
    return True


def _holds(known: Mapping[str, Check], basis: str, place: Place, targets: Iterable[str]) -> bool:
    """Whether a release was looked at for all its targets in a place, and with what is there now."""
    missing = [target for target in targets if target in place.targets and target not in known]
    return not missing and all(one.basis == basis for target, one in known.items() if target in place.targets)

"""When a release is installed together with others: once it was built, as a trial, and again when others have gone.

What is chosen needs the solver, so it is the master's turn that chooses, and not the verdict.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from cleanroom_base.errors import InfrastructureError
from cleanroom_db import dependents, releases, trials, unions
from cleanroom_db.conflicts import Place, UnionMember
from cleanroom_db.connection import Database
from cleanroom_db.states import ReleaseState, TrialPurpose
from cleanroom_db.trials import NewTrial
from cleanroom_db.unions import Choice, Held, Waiting
from cleanroom_master.conflicts import union
from cleanroom_master.conflicts.check import Checker

_FORMATS = ("deb", "rpm")
# How long, in seconds, what could not be found out is left alone, and a held release with which others changed.
_PATIENCE = 300.0
# So many releases are chosen for in one turn.
_AT_ONCE = 5


class Trying:
    """What the master does about unions between builds."""

    def __init__(self, database: Database, checker: Checker) -> None:
        self._database = database
        self._checker = checker
        self._later: dict[int, float] = {}

    def turn(self) -> None:
        """Choose for the releases that wait for it, and again for those that fail with what is not there any more."""
        for waiting in [one for one in unions.waiting(self._database) if self._is_due(one)][:_AT_ONCE]:
            self._choose(waiting)
        for held in [one for one in unions.held(self._database) if self._is_due(one)][:_AT_ONCE]:
            self._again(held)

    def _is_due(self, release: Waiting) -> bool:
        return self._later.get(release.id, 0.0) <= time.monotonic()

    def _choose(self, release: Waiting) -> None:
        try:
            choice = self._choice(release)
        except InfrastructureError as error:
            # The release goes on waiting, says for what, and is chosen for later.
            self._postpone(release)
            choice = Choice(problem=str(error))
        self._record(release, choice, ReleaseState.BUILDING)

    def _again(self, release: Held) -> None:
        """Install a release that failed once more, where one of those that it was installed with has gone.

        What came besides cannot mend it.
        """
        if self._basis(release) == release.basis:
            return
        self._postpone(release)
        try:
            choice = self._choice(release)
        except InfrastructureError:
            return  # it stays held, and says why
        if set(release.others) <= choice.others:
            unions.set_basis(self._database, release.id, choice.basis)
        else:
            self._record(release, choice, ReleaseState.HELD)

    def _postpone(self, release: Waiting) -> None:
        self._later[release.id] = time.monotonic() + _PATIENCE

    def _record(self, release: Waiting, choice: Choice, state: ReleaseState) -> None:
        """Keep a choice and begin its trial, if the release is still where it was, and judge it by that."""
        with self._database.transaction() as cursor:
            locked = releases.lock(cursor, release.id)
            if locked.state is state:
                trial = trials.insert(cursor, _trial(release, choice)) if choice.members else None
                unions.choose(cursor, release.id, release.channel, choice, trial)
                releases.judge_again(cursor, locked)

    def _choice(self, release: Waiting) -> Choice:
        """What a release is installed together with, now. Raises InfrastructureError."""
        basis = self._basis(release)
        members: dict[str, list[tuple[UnionMember, bool]]] = {}
        left_out: list[str] = []
        notes: list[str] = []
        beside = unions.beside(self._database, release.id, release.channel)
        for place in self._places(release):
            own = {sha256 for _, sha256 in dependents.candidates(self._database, release.id, place.image)}
            for form in _FORMATS:
                wanted = union.union(self._database, self._checker, place, release.id, form, beside)
                some = sorted(((one, one.sha256 in own) for one in _by_file(wanted.members)), key=_suspicion)
                # Its own alone were installed by its phase `install`; without them it is not about this release.
                if {mine for _, mine in some} == {True, False}:
                    members[str(wanted.target)] = some
                left_out += wanted.left_out
                notes += [] if wanted.whole else [_beyond(place)]
        return Choice(members, tuple(dict.fromkeys(left_out)), "; ".join(dict.fromkeys(notes)), basis)

    def _basis(self, release: Waiting) -> str:
        """What tells all that is there from what is there at another time."""
        beside = unions.beside(self._database, release.id, release.channel)
        return " ".join(self._checker.look(place, [release.id], beside).basis for place in self._places(release))

    def _places(self, release: Waiting) -> list[Place]:
        with self._database.transaction() as cursor:
            targets = dependents.targets(cursor, release.id)
        return [*dict.fromkeys(Place.of(release.channel, target) for target in targets)]


def _by_file(members: Iterable[UnionMember]) -> list[UnionMember]:
    """The members, those that come first where files have one name: names of artifacts are the products' choice."""
    found: dict[str, UnionMember] = {}
    for one in members:
        found.setdefault(one.file, one)
    return list(found.values())


def _suspicion(member: tuple[UnionMember, bool]) -> tuple[bool, bool, str]:
    """The order in which people are told of packages: the release's own, what waits beside it, what is published."""
    one, own = member
    return not own, one.published is not None, one.name


def _beyond(place: Place) -> str:
    return f"{place.channel} publishes more than {union.PUBLISHED} packages, which are not installed as a whole"


def _trial(release: Waiting, choice: Choice) -> NewTrial:
    return NewTrial(
        TrialPurpose.UNION,
        release.product,
        release.ref,
        release.commit,
        release.kind,
        release.recipe,
        release.channel,
        [(target, (union.PHASE,)) for target in choice.members],
        "verdict",
        {},
        subject=release.id,
    )

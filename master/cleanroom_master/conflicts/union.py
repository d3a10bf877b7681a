"""The union: what a release would be installed with, in one clean guest, for real.

It is the phase `install` of the format's own builder, over the packages of everybody who is on the way into a place
and, where the channel is small enough, over what it publishes: each in its newest version, without those that exclude
each other on purpose. Whoever schedules guests asks for a `union`, brings the files of its members, and
has a worker run the `phase`; `request` is all of that in one order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cleanroom_base.errors import InputError
from cleanroom_db import conflicts
from cleanroom_db.conflicts import Place, UnionMember
from cleanroom_db.connection import Database
from cleanroom_master.conflicts.check import Checker
from cleanroom_recipes import loader
from cleanroom_recipes.model import Builder, RefKind, Target
from cleanroom_recipes.plan import PhasePlan, plan
from cleanroom_recipes.request import PhaseRequest

PHASE = "install"
# A channel with more packages than these is not installed as a whole.
PUBLISHED = 200


@dataclass(frozen=True, slots=True)
class Union:
    """Packages that are to be installed together on a target, and the names of those that cannot be among them.

    Not `whole`: what is published is not among them, since there are more than `PUBLISHED`.
    """

    target: Target
    members: tuple[UnionMember, ...]
    left_out: tuple[str, ...]
    whole: bool = True


def union(
    database: Database, checker: Checker, place: Place, release: int, form: str, beside: Sequence[int] = ()
) -> Union:
    """What is installed with a release's packages of a format (`deb`, `rpm`); empty where it has none.

    Its own packages come first: of two that exclude each other, the other one is left out. `beside` are releases that
    are taken in though they do not wait for publication yet. Raises InfrastructureError.
    """
    found = checker.together(place, release, form, most=PUBLISHED, beside=beside)
    ids = (*found.together, *found.left_out)
    known = {member.id: member for member in conflicts.union_members(database, place, ids)}
    return Union(
        Target(place.image, Builder(form)),
        tuple(known[number] for number in found.together if number in known),
        tuple(known[number].name for number in found.left_out if number in known),
        found.whole,
    )


def phase(target: Target) -> PhasePlan:
    """The phase that installs everything that lies among the artifacts."""
    recipe = loader.load(
        f'builder = "{target.format}"\ntargets = ["{target}"]\n'.encode(),
        source="the union",
        name="union",
        url="https://localhost/union.git",
    )
    return next(one for one in plan(recipe, target) if one.name == PHASE)


def request(wanted: Union, *, attempt: int, artifacts: Path, output: Path) -> PhaseRequest:
    """The order to a worker; `artifacts` is where it finds the members' files. Raises InputError without members."""
    if not wanted.members:
        raise InputError("there is nothing to be installed together")
    return PhaseRequest(
        product="union",
        ref="union",
        kind=RefKind.TAG,
        commit="0" * 40,
        commit_time=datetime(2000, 1, 1, tzinfo=UTC),
        expected_version=None,
        target=wanted.target,
        attempt=attempt,
        phase=phase(wanted.target),
        source=None,
        artifacts=artifacts,
        previous=None,
        output=output,
    )

"""How a generation comes about: recorded, written, verified, switched to, and noted, in this order.

The record says what a generation is to hold before it is written; after a kill the disk says whether it became
visible, and the record follows the disk (`recover`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cleanroom_base.errors import CleanroomError, InputError
from cleanroom_db import generations
from cleanroom_db.connection import Database
from cleanroom_db.generations import ChannelPackage, Leaving, NewPackage
from cleanroom_master.publish.package import Package, recorded_format
from cleanroom_master.publish.repository import Repository

_REASON = 1000


@dataclass(frozen=True)
class Change:
    """What a generation changes, who wants it, and why.

    `start` is the generation from whose contents it departs (None: the current one), and `without` what of that is
    left out; `added` and `removed` are what the record notes, in comparison with the current one. `publications`,
    `returning`, `leaving`, `request` and `withdrawing` are as `generations.prepare` has them. `anew`: nothing is
    taken over from what was written before.
    """

    actor: str
    reason: str
    added: Sequence[NewPackage] = ()
    removed: Sequence[ChannelPackage] = ()
    publications: Sequence[int] = ()
    returning: Sequence[tuple[int, str]] = ()
    leaving: Sequence[Leaving] = ()
    request: int | None = None
    withdrawing: int | None = None
    start: int | None = None
    without: Sequence[ChannelPackage] = ()
    anew: bool = False


def recover(database: Database, repository: Repository) -> None:
    """After a start: let the record follow what is visible, and clear away what a kill left."""
    unfinished = generations.unswitched(database)
    if unfinished is not None:
        if repository.current() == unfinished.number:
            generations.switched(database, unfinished.number)
        else:
            generations.discard(database, unfinished.number)
    repository.discard_unfinished()


def make(database: Database, repository: Repository, change: Change) -> int:
    """Make the next generation and return its number.

    Raises InputError when a client would not accept it; whatever goes wrong, the current generation stays.
    """
    current = repository.current()
    generation = generations.prepare(
        database,
        actor=change.actor,
        reason=change.reason[:_REASON],
        added=change.added,
        removed=[package.id for package in change.removed],
        publications=change.publications,
        returning=change.returning,
        leaving=change.leaving,
        request=change.request,
        withdrawing=change.withdrawing,
        at_least=(current or 0) + 1,
    )
    number = generation.number
    try:
        _write(repository, number, current, change)
        problems = repository.verify(number, since=None if change.anew else current)
        if problems:
            raise InputError("a client would not accept the repository", problems=problems)
        repository.switch(number)
    except CleanroomError:
        if repository.current() != number:
            generations.discard(database, number)
        repository.discard_unshown()
        raise
    generations.switched(database, number)
    return number


def _write(repository: Repository, number: int, current: int | None, change: Change) -> None:
    if change.start is None:
        added, removed = map(published, change.added), map(published, change.removed)
        repository.change(number, start=current, added=added, removed=removed, anew=change.anew)
    else:
        # What the record calls added and removed is in comparison with the current one, not with this.
        repository.change(number, start=change.start, added=(), removed=map(published, change.without))


def published(one: NewPackage | ChannelPackage) -> Package:
    """A package of the record as the repository knows it."""
    return Package(
        one.channel,
        one.target,
        recorded_format(one.format),
        one.file,
        one.sha256,
        one.size,
        one.name,
        one.version,
        one.architecture,
    )

"""How a generation comes about: recorded, written, verified, switched to, and noted, in this order.

The record says what a generation is to hold before it is written; after a kill the disk says whether it became
visible, and the record follows the disk (`recover`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from cleanroom_base.errors import CleanroomError
from cleanroom_db import generations
from cleanroom_db.connection import Database, Row
from cleanroom_db.generations import ChannelPackage, Leaving, NewPackage
from cleanroom_master.publish.package import Package, recorded_format
from cleanroom_master.publish.page import Origin, Withdrawn
from cleanroom_master.publish.repository import Repository, Unacceptable

_REASON = 1000
# So many withdrawn packages are on the consumer's page.
_TOLD = 50


@dataclass(frozen=True)
class Change:
    """What a generation changes, who wants it, and why.

    `added` and `removed` are in comparison with the current one. A rollback instead has `start`, the generation whose
    contents come back, and `without`, what of that is left out. `publications`, `leaving`, `request` and `withdrawing`
    are as `generations.prepare` has them. `anew`: nothing is taken over from what was written before; `sign_anew`:
    nothing but signatures. `tried`: a consumer is to install what is published.
    """

    actor: str
    reason: str
    added: Sequence[NewPackage] = ()
    removed: Sequence[ChannelPackage] = ()
    publications: Sequence[int] = ()
    leaving: Sequence[Leaving] = ()
    request: int | None = None
    withdrawing: int | None = None
    start: int | None = None
    without: Sequence[ChannelPackage] = ()
    anew: bool = False
    sign_anew: bool = False
    tried: bool = False


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
    number = generations.prepare(
        database,
        actor=change.actor,
        reason=change.reason[:_REASON],
        added=change.added,
        removed=[package.id for package in change.removed],
        publications=change.publications,
        leaving=change.leaving,
        request=change.request,
        withdrawing=change.withdrawing,
        tried=change.tried,
        at_least=(current or 0) + 1,
    )
    try:
        _write(database, repository, number, current, change)
        repository.switch(number)
    except CleanroomError:
        if repository.current() != number:
            generations.discard(database, number)
        repository.discard_unshown()
        raise
    generations.switched(database, number)
    return number


def _write(database: Database, repository: Repository, number: int, current: int | None, change: Change) -> None:
    """Write a generation that the record describes, and verify it."""
    told = [_withdrawn(row) for row in generations.withdrawn(database, limit=_TOLD)]
    start = current if change.start is None else change.start
    if change.anew or (start is not None and not repository.readable(start)):
        left_out = {package.id for package in change.without}
        there = generations.contents(database, number if change.start is None else change.start)
        whole = [published(one) for one in there if one.id not in left_out]
        repository.build(number, whole, anew=True, withdrawn=told, origins=partial(_origins, database))
        problems = repository.verify(number)
        if problems:
            raise Unacceptable("a client would not accept the repository", problems=problems)
        return
    added, removed = (change.added, change.removed) if change.start is None else ((), change.without)
    repository.change(
        number,
        start=start,
        added=map(published, added),
        removed=map(published, removed),
        withdrawn=told,
        origins=partial(_origins, database),
        sign_anew=change.sign_anew,
    )


def _origins(database: Database, packages: Sequence[Package]) -> dict[tuple[str, str], Origin]:
    """Of which releases packages are, since when they are there, and where the logs of their builds are."""
    return {
        (row["channel"], row["sha256"]): Origin(row["at"], row["product"], row["ref"], _address(row["logs"]))
        for row in generations.origins(database, [(one.channel, one.sha256) for one in packages])
    }


def _address(text: str | None) -> str | None:
    """What may be a link on a page."""
    return text if text is not None and text.startswith(("https://", "http://")) else None


def _withdrawn(row: Row) -> Withdrawn:
    return Withdrawn(
        name=row["name"],
        version=row["version"],
        architecture=row["architecture"],
        channel=row["channel"],
        image=row["target"].partition("/")[0],
        at=row["at"],
        reason=row["reason"],
    )


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

"""The products that depend on a release's, tried with its packages before these go out.

Which are tried is chosen once, when the release was built; what came of it is what the gate `dependents` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cleanroom_db.connection import Cursor, Database
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_recipes.model import Outcome, RefKind

_SQL = load("dependents")

_FAILING = (Outcome.FAILED, Outcome.REGRESSED)
_REASON = 200


@dataclass(frozen=True)
class Published(Entity):
    """A release that a channel published, and the targets for which it was built."""

    id: int
    product: str
    ref: str
    commit: str
    kind: RefKind
    recipe: Mapping[str, Any]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Waiting(Entity):
    """A release whose dependents are to be chosen."""

    id: int
    product: str
    ref: str
    channel: str


@dataclass(frozen=True)
class Failure(Entity):
    """A phase in which a dependent failed; `before`: it did so with what was published, too."""

    product: str
    ref: str
    target: str
    phase: str
    why: str
    before: bool


@dataclass(frozen=True)
class Tried:
    """How the chosen dependents did: `open` are still being tried, `spoiled` were not judged, `flaky` pass at times."""

    products: tuple[str, ...]
    open: tuple[str, ...] = ()
    spoiled: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    left_out: tuple[str, ...] = ()
    flaky: tuple[str, ...] = ()

    def said(self, subject: str) -> tuple[bool | None, str]:
        """Whether the gate holds (None: that is not known yet), and one sentence; `subject` is what is tried."""
        guilty = [failure for failure in self.failures if not failure.before]
        if guilty:
            return False, "; ".join(map(self._failed, guilty[:3])) + f" with {subject}{self._rest(len(guilty) - 3)}"
        if self.spoiled:
            return False, f"could not try {', '.join(self.spoiled)} with {subject}: the infrastructure failed"
        if self.open:
            done = len(self.products) - len(self.open)
            return None, f"waits for dependents: {', '.join(self.open[:5])} ({done} of {len(self.products)} done)"
        if not self.products:
            return True, f"no published product depends on {subject.partition(' ')[0]}"
        number = len(self.products)
        said = f"{number} {'dependent passes' if number == 1 else 'dependents pass'} with {subject}"
        excused = dict.fromkeys(failure.product for failure in self.failures)
        if excused:
            said += f", or fail as before: {', '.join(excused)}"
        if self.flaky:
            said += f"; flaky: {', '.join(self.flaky)}"
        return True, said + self._left_out()

    def _failed(self, failure: Failure) -> str:
        reason = f" ({failure.why[:_REASON]})" if failure.why else ""
        return f"`{failure.phase}` of {failure.product} {failure.ref} failed on {failure.target}{reason}"

    def _rest(self, more: int) -> str:
        return (f", and {more} more" if more > 0 else "") + self._left_out()

    def _left_out(self) -> str:
        number = len(self.left_out)
        return f"; {number} {'was' if number == 1 else 'were'} left out" if number else ""


def waiting(cursor: Cursor) -> list[Waiting]:
    """The releases whose dependents are to be chosen, oldest first."""
    return [Waiting.from_row(row) for row in cursor.rows(_SQL["waiting"])]


def published(cursor: Cursor, channel: str, products: Sequence[str] | None = None) -> list[Published]:
    """The release that a channel published last of each of some products, or of all."""
    wanted = None if products is None else list(products)
    return [Published.from_row(row) for row in cursor.rows(_SQL["published"], channel=channel, products=wanted)]


def targets(cursor: Cursor, release_id: int) -> list[str]:
    """The targets of a release."""
    return [row["target"] for row in cursor.rows(_SQL["targets"], release=release_id)]


def choose(cursor: Cursor, release_id: int, trials: Iterable[int], left_out: Iterable[str]) -> None:
    """Keep with which trials a (locked) release is tried, and for which products there was no room."""
    cursor.execute(_SQL["choose"], release=release_id, trials=list(trials), left_out=list(left_out))


def forget(cursor: Cursor, release_id: int) -> bool:
    """Have the dependents of a (locked) release chosen again; False if none were chosen."""
    return cursor.execute(_SQL["forget"], release=release_id) == 1


def tried(cursor: Cursor, release_id: int) -> Tried | None:
    """How the dependents of a release did; None until they are chosen."""
    choice = cursor.row(_SQL["choice"], release=release_id)
    if choice is None:
        return None
    rows = cursor.rows(_SQL["tried"], trials=choice["trials"])
    failures = [
        Failure(row["product"], row["ref"], row["target"], row["phase"], row["phase_why"], row["failed_before"])
        for row in rows
        if row["phase"] is not None and row["outcome"] is not None
    ]
    judged = {failure.product for failure in failures}
    return Tried(
        products=_names(row["product"] for row in rows),
        open=_names(row["product"] for row in rows if row["outcome"] is None),
        spoiled=_names(
            row["product"]
            for row in rows
            if row["outcome"] in (Outcome.INFRASTRUCTURE, Outcome.CANCELLED)
            or (row["outcome"] in _FAILING and row["product"] not in judged)
        ),
        failures=tuple(failures),
        left_out=tuple(choice["left_out"]),
        flaky=_names(row["product"] for row in rows if row["outcome"] == Outcome.FLAKY),
    )


def candidates(database: Database, release_id: int, image: str) -> list[tuple[str, str]]:
    """The packages of a release that belong into guests of an image: file names and digests."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["candidates"], release=release_id, image=image)
    return [(row["file"], row["sha256"]) for row in rows]


def _names(products: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(products))

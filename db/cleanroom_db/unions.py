"""Releases installed in a guest together with all that their channel has or is to get, before they go out.

What is installed is chosen once, when the release was built; what came of it is what the gate `union` says. A release
for which is chosen later is installed with those for which was chosen before: so of two that come at the same time, the
later one meets the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cleanroom_db.conflicts import UnionMember
from cleanroom_db.connection import Cursor, Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_recipes.model import Outcome, RefKind

_SQL = load("unions")

_GOOD = (Outcome.PASSED, Outcome.SKIPPED)
_FAILING = (Outcome.FAILED, Outcome.REGRESSED, Outcome.FLAKY)
_NAMES = 10
_REASON = 300


@dataclass(frozen=True)
class Waiting(Entity):
    """A release for which is to be chosen what it is installed together with."""

    id: int
    product: str
    ref: str
    commit: str
    kind: RefKind
    recipe: Mapping[str, Any]
    channel: str


@dataclass(frozen=True)
class Held(Waiting):
    """A release that could not be installed together with `others`, given by the digests of their packages as built."""

    basis: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """What is installed together, by target: packages, and whether each is the release's own. Nothing: nothing is.

    `note` says what is not among it, `basis` tells all that was there from what was there at another time.
    """

    members: Mapping[str, Sequence[tuple[UnionMember, bool]]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    note: str = ""
    basis: str = ""
    problem: str = ""

    @property
    def others(self) -> set[str]:
        """The digests, as built, of the packages that are not the release's own."""
        return {member.sha256 for some in self.members.values() for member, own in some if not own}


@dataclass(frozen=True)
class Together(Entity):
    """How the packages of a target did together; `outcome` None: that is not known yet.

    `own` and `others` are names of packages, `log` is the digest of the log of the step that failed.
    """

    target: str
    outcome: Outcome | None
    why: str
    log: str | None
    own: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """What was chosen for a release, and how it did. `trial` None: nothing is installed together."""

    channel: str
    trial: int | None
    problem: str
    left_out: tuple[str, ...]
    note: str = ""
    chosen_at: datetime | None = None
    targets: tuple[Together, ...] = ()

    def said(self) -> tuple[bool | None, str]:
        """Whether the gate holds (None: that is not known yet), and one sentence."""
        if self.problem:
            return None, f"what it is installed together with cannot be told yet: {self.problem}"
        failed = [one for one in self.targets if one.outcome in _FAILING]
        if failed:
            return False, "; ".join(map(_failed, failed)) + self._more()
        spoiled = [one for one in self.targets if one.outcome is not None and one.outcome not in _GOOD]
        if spoiled:
            why = "; ".join(f"{one.target}: {one.why or one.outcome}" for one in spoiled)
            return False, f"could not be installed together with others, for no fault of its own ({why})"
        waiting = [one.target for one in self.targets if one.outcome is None]
        if waiting:
            return None, f"waits to be installed together with what {self.channel} has on {', '.join(waiting)}"
        if not self.targets:
            return True, f"there is nothing in {self.channel} to install it together with{self._more()}"
        told = [f"{len(one.own) + len(one.others)} packages on {one.target}" for one in self.targets]
        return True, f"installed together with what {self.channel} has: {', '.join(told)}{self._more()}"

    def _more(self) -> str:
        left_out = f"; left out: {_named(self.left_out)}" if self.left_out else ""
        return left_out + (f"; {self.note}" if self.note else "")


def waiting(database: Database) -> list[Waiting]:
    """The releases for which is to be chosen, oldest first."""
    with database.transaction() as cursor:
        return [Waiting.from_row(row) for row in cursor.rows(_SQL["waiting"])]


def held(database: Database) -> list[Held]:
    """The releases that nothing keeps but gates, and that could not be installed together with others."""
    with database.transaction() as cursor:
        return [Held.from_row(row) for row in cursor.rows(_SQL["held"])]


def beside(database: Database, release_id: int, channel: str) -> list[int]:
    """Further releases on their way into a channel: those that are being tried, and for which was chosen before."""
    with database.transaction() as cursor:
        return [row["id"] for row in cursor.rows(_SQL["beside"], release=release_id, channel=channel)]


def choose(cursor: Cursor, release_id: int, channel: str, choice: Choice, trial: int | None) -> None:
    """Keep what a (locked) release is installed together with, and in which trial, instead of an earlier choice."""
    cursor.execute(_SQL["forget"], release=release_id)
    cursor.execute(
        _SQL["choose"],
        release=release_id,
        channel=channel,
        trial=trial,
        problem=plain(choice.problem),
        left_out=list(choice.left_out),
        note=plain(choice.note),
        basis=choice.basis,
    )
    rows = [
        (release_id, target, position, one.id, one.name, one.file, one.sha256, one.published, own)
        for target, some in choice.members.items()
        for position, (one, own) in enumerate(some)
    ]
    cursor.insert_many(_SQL["insert_members"], rows)


def set_basis(database: Database, release_id: int, basis: str) -> None:
    """Note that a choice would be the same with what is there now."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["set_basis"], release=release_id, basis=basis)


def forget(cursor: Cursor, release_id: int) -> bool:
    """Have it chosen again for a (locked) release; False if it was not chosen."""
    return cursor.execute(_SQL["forget"], release=release_id) == 1


def tried(cursor: Cursor, release_id: int) -> Tried | None:
    """What was chosen for a release and how it did; None until it is chosen."""
    choice = cursor.row(_SQL["choice"], release=release_id)
    if choice is None:
        return None
    rows = cursor.rows(_SQL["tried"], release=release_id, trial=choice["trial_id"])
    return Tried(
        choice["channel"],
        choice["trial_id"],
        choice["problem"],
        tuple(choice["left_out"]),
        choice["note"],
        choice["chosen_at"],
        tuple(Together.from_row(row) for row in rows),
    )


def members(database: Database, trial_id: int, target: str) -> list[UnionMember]:
    """What a trial installs together on a target, the release's own first."""
    with database.transaction() as cursor:
        return [UnionMember.from_row(row) for row in cursor.rows(_SQL["members"], trial=trial_id, target=target)]


def _failed(one: Together) -> str:
    # What the installation said last is at the end of it.
    reason = one.why if len(one.why) <= _REASON else f"...{one.why[-_REASON:]}"
    named = f"{_named(one.own)} cannot be installed together with {_named(one.others)} on {one.target}"
    return f"{named} ({reason})" if reason else named


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")

"""Messages about changes of state: the outbox, whom to tell, and what came of telling them.

The schema writes a row of `state_change` within the very transaction that changes a state, whoever does that. From
these, messages are made once, each with a key that stays the same however often it is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cleanroom_base.errors import InputError
from cleanroom_db.connection import Cursor, Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import NotificationEvent, NotificationState, ReleaseState, Removal, RequestKind
from cleanroom_recipes.model import Outcome

_SQL = load("notifications")


@dataclass(frozen=True)
class StateChange(Entity):
    """A release has another state, or (`generation`) consumers see another generation; the other's fields are None."""

    id: int
    state: ReleaseState | None
    why: str
    generation: int | None
    at: datetime
    release_id: int | None
    product: str | None
    ref: str | None
    commit: str | None
    version: str | None
    channel: str | None
    subscribed: list[str] | None
    url: str | None


@dataclass(frozen=True)
class Compared(Entity):
    """What became of a build of a release since what its channel published; None where it was not compared."""

    target: str
    outcome: Outcome
    why: str
    against: str | None
    regressed: int | None
    fixed: int | None
    phases: list[str] | None
    names: Mapping[str, Sequence[str]] | None

    @property
    def worse(self) -> bool:
        """Whether a test or a phase passed before and fails now."""
        return self.outcome is Outcome.REGRESSED or bool(self.regressed) or bool(self.phases)


@dataclass(frozen=True)
class Switched(Entity):
    """A generation. `kind`: what was asked for that it came from; None: releases went out."""

    number: int
    actor: str
    reason: str
    kind: RequestKind | None


@dataclass(frozen=True)
class Moved(Entity):
    """A release that came into a channel, or went out of it, with a generation."""

    release_id: int
    product: str
    ref: str
    commit: str
    version: str | None
    channel: str
    subscribed: list[str] | None
    came: bool
    removal: Removal | None
    why: str


@dataclass(frozen=True)
class Notification(Entity):
    """One message for one endpoint. `key` is told with every try; `release_id` None: it is about more than one."""

    id: int
    key: str
    change_id: int
    endpoint: str
    event: NotificationEvent
    release_id: int | None
    content: Mapping[str, Any]
    state: NotificationState
    tries: int
    not_before: datetime
    problem: str
    created_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True)
class Leased(Notification):
    """A message that is being sent. `ref_event_id` is that of its release."""

    ref_event_id: int | None


@dataclass(frozen=True)
class Subject(Entity):
    """A release as its forge is told of it."""

    product: str
    ref: str
    commit: str
    version: str | None
    state: ReleaseState
    why: str
    url: str


def untold(cursor: Cursor, *, limit: int = 100) -> list[StateChange]:
    """Changes about which nobody was told yet, oldest first; locked until the transaction's end."""
    return [StateChange.from_row(row) for row in cursor.rows(_SQL["untold"], limit=limit)]


def told(cursor: Cursor, change: StateChange) -> None:
    """All messages about a change are there."""
    cursor.execute(_SQL["told"], id=change.id)


def compared(cursor: Cursor, release_id: int) -> list[Compared]:
    """What became of a release's builds, by target."""
    return [Compared.from_row(row) for row in cursor.rows(_SQL["comparisons"], release=release_id)]


def stand(cursor: Cursor, product: str, channel: str, release_id: int, *, regressed: bool) -> bool:
    """Note whether a release regressed; True if that is another state than its product had in the channel.

    A release that is older than the one which was noted last says nothing.
    """
    before = cursor.row(_SQL["standing"], product=product, channel=channel)
    if before is not None and before["release_id"] > release_id:
        return False
    cursor.execute(_SQL["stand"], product=product, channel=channel, regressed=regressed, release=release_id)
    return regressed if before is None else regressed is not before["regressed"]


def switched(cursor: Cursor, number: int) -> tuple[Switched, list[Moved]]:
    """A generation, and the releases that came and went with it."""
    row = cursor.row(_SQL["generation"], number=number)
    assert row is not None
    return Switched.from_row(row), [Moved.from_row(one) for one in cursor.rows(_SQL["moved"], number=number)]


def add(
    cursor: Cursor,
    change: StateChange,
    endpoint: str,
    event: NotificationEvent,
    content: Mapping[str, Any],
    *,
    release: int | None,
) -> None:
    """Add a message; one about the same is there once. A commit's new status replaces those that wait."""
    if event is NotificationEvent.STATUS:
        cursor.execute(_SQL["supersede"], endpoint=endpoint, release=release)
    cursor.execute(_SQL["add"], change=change.id, endpoint=endpoint, event=event, release=release, content=content)


def lease(database: Database, owner: str, seconds: float, busy: Iterable[str] = ()) -> Leased | None:
    """Take the next message that is due, for so many seconds; none for the endpoints that are `busy`."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["lease"], owner=owner, seconds=seconds, busy=list(busy))
    return None if row is None else Leased.from_row(row)


def subject(database: Database, release_id: int) -> Subject:
    """A release as it is now."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["release"], id=release_id)
    assert row is not None
    return Subject.from_row(row)


def settle(database: Database, one: Notification, owner: str, state: NotificationState, problem: str = "") -> None:
    """A message was delivered, or will not be."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["settle"], id=one.id, owner=owner, state=state, problem=plain(problem))


def postpone(database: Database, one: Notification, owner: str, problem: str, pause: float) -> None:
    """A message could not be delivered, and is tried again after `pause` seconds."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["postpone"], id=one.id, owner=owner, problem=plain(problem), pause=pause)


def next_due(database: Database) -> float | None:
    """In how many seconds a message is due; None: none waits."""
    with database.transaction() as cursor:
        found: float | None = cursor.value(_SQL["next_due"])
    return found


def latest(
    database: Database, *, state: NotificationState | None = None, endpoint: str | None = None, limit: int = 50
) -> list[Notification]:
    """The latest messages, newest first."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["latest"], state=state, endpoint=endpoint, limit=limit)
    return [Notification.from_row(row) for row in rows]


def retry(database: Database, notification_id: int) -> None:
    """Have a message that failed, or waits, be tried now. Raises InputError."""
    with database.transaction() as cursor:
        again = cursor.execute(_SQL["retry"], id=notification_id) or cursor.execute(_SQL["hasten"], id=notification_id)
        if not again:
            raise InputError(
                f"there is no notification {notification_id} that failed or waits",
                hint="'cleanroom notification list' shows them",
            )
        cursor.execute(_SQL["wake"])

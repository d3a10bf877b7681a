"""Publications: the outbox. The verdict puts releases in, the publisher takes them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cleanroom_base.errors import InputError
from cleanroom_db.connection import Database, plain
from cleanroom_db.phases import Artifact
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import PublicationState

_SQL = load("publications")


@dataclass(frozen=True)
class Publication(Entity):
    """A release that is to go, or went, into a channel. `generation` None: into none yet."""

    id: int
    release_id: int
    channel: str
    state: PublicationState
    requested_by: str
    requested_at: datetime
    generation: int | None
    why: str


@dataclass(frozen=True)
class Pending(Publication):
    """A publication that waits, with its release."""

    product: str
    ref: str
    commit: str
    version: str | None
    ref_event_id: int


@dataclass(frozen=True)
class ReleasedFile(Artifact):
    """A file of the passed attempt of one of a release's builds."""

    target: str


def pending(database: Database, *, limit: int = 100) -> list[Pending]:
    """Publications that wait, oldest first. There is one publisher, so nothing is reserved.

    What was refused before waits again once a person has approved its release.
    """
    with database.transaction() as cursor:
        cursor.execute(_SQL["try_approved_again"])
        return [Pending.from_row(row) for row in cursor.rows(_SQL["pending"], limit=limit)]


def still_pending(database: Database, ids: Sequence[int]) -> set[int]:
    """Those of some publications that still wait."""
    with database.transaction() as cursor:
        return {row["id"] for row in cursor.rows(_SQL["still_pending"], ids=list(ids))}


def files(database: Database, release_id: int) -> list[ReleasedFile]:
    """What a release has to publish: the files of each build's latest attempt, if that passed or was let pass."""
    with database.transaction() as cursor:
        return [ReleasedFile.from_row(row) for row in cursor.rows(_SQL["files"], release=release_id)]


def request(database: Database, release_id: int, channel: str, requested_by: str) -> None:
    """Ask for a release to go into a channel; to ask twice is no harm."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["request"], release=release_id, channel=channel, requested_by=plain(requested_by))


def explain_waiting(database: Database, why: str) -> None:
    """Say in the releases that wait for publication why they still do."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["explain_waiting"], why=plain(f"passed; its publication is tried again: {why}"))


def refuse(database: Database, publication_id: int, why: str) -> None:
    """A release cannot go into the channel; it is held, and says why. Raises InputError."""
    with database.transaction() as cursor:
        release_id = cursor.value(_SQL["refuse"], id=publication_id, why=plain(why))
        if release_id is None:
            raise InputError(f"publication {publication_id} does not wait")
        cursor.execute(_SQL["hold_release"], release=release_id, why=plain(f"not published: {why}"))


def get(database: Database, publication_id: int) -> Publication:
    """A publication as it is now. Raises InputError."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["get"], id=publication_id)
    if row is None:
        raise InputError(f"there is no publication {publication_id}")
    return Publication.from_row(row)


def withdraw_waiting(database: Database, release_id: int, channel: str | None, why: str) -> list[str]:
    """A release shall not go into a channel (None: any) that it waits for; returns those channels.

    One that is published nowhere is withdrawn then.
    """
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["withdraw_waiting"], release=release_id, channel=channel, why=plain(why))
        if rows:
            cursor.execute(_SQL["withdraw_release"], release=release_id, why=plain(why))
    return [str(row["channel"]) for row in rows]


def message(database: Database, release_id: int) -> str:
    """What the tag of a release says."""
    with database.transaction() as cursor:
        return str(cursor.value(_SQL["message"], release=release_id) or "")


def note_security_fix(database: Database, release_id: int, evidence: str) -> None:
    """Note that a release says that it mends a hole in security, and by what."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["note_security_fix"], release=release_id, evidence=plain(evidence))

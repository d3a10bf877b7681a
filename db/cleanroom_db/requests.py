"""Requests to the publisher: what people ask of the repository, which it alone writes.

A request is a row that waits; the publisher is woken by it, does it, and says in the row what came of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cleanroom_base.errors import InputError
from cleanroom_db import audit
from cleanroom_db.connection import Cursor, Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import RequestKind, RequestState

_SQL = load("requests")
_AUDITED = {
    RequestKind.ROLLBACK: "repository rollback",
    RequestKind.WITHDRAW: "release withdraw",
    RequestKind.REPAIR: "repository repair",
    RequestKind.ROTATE_KEY: "repository key rotate",
    RequestKind.RETIRE_KEY: "repository key retire",
    RequestKind.EXTEND_KEY: "repository key extend",
}


@dataclass(frozen=True)
class Request(Entity):
    """Something asked of the publisher. `target` is the generation to go back to, `generation` the one that came of it.

    `channel` None: of a withdrawal, all. `forced`: whoever asked was warned, and insists. `parameters`: what else its
    kind needs.
    """

    id: int
    kind: RequestKind
    actor: str
    reason: str
    target: int | None
    release_id: int | None
    channel: str | None
    forced: bool
    state: RequestState
    why: str
    result: Mapping[str, Any]
    generation: int | None
    requested_at: datetime
    finished_at: datetime | None
    parameters: Mapping[str, Any]


def ask(
    database: Database,
    kind: RequestKind,
    *,
    actor: str,
    subject: str,
    reason: str = "",
    target: int | None = None,
    release_id: int | None = None,
    channel: str | None = None,
    forced: bool = False,
    parameters: Mapping[str, Any] | None = None,
    detail: Mapping[str, Any] | None = None,
) -> Request:
    """Ask the publisher; `subject` and `detail` are for the audit log, where what changes something is noted.

    Raises InputError for what nobody can do, such as going back without a reason.
    """
    if kind in (RequestKind.ROLLBACK, RequestKind.WITHDRAW) and not reason.strip():
        raise InputError("a reason is needed: it is shown to whoever asks later", hint='--reason "why"')
    with database.transaction() as cursor:
        row = cursor.row(
            _SQL["insert"],
            kind=kind,
            actor=plain(actor),
            reason=plain(reason),
            target=target,
            release=release_id,
            channel=channel,
            forced=forced,
            parameters=parameters or {},
        )
        assert row is not None
        if kind in _AUDITED:
            audit.record(database, actor, _AUDITED[kind], subject, reason=reason, detail=detail)
        return Request.from_row(row)


def get(database: Database, request_id: int) -> Request:
    """A request as it is now. Raises InputError."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["get"], id=request_id)
    if row is None:
        raise InputError(f"there is no request {request_id}")
    return Request.from_row(row)


def first_pending(database: Database) -> Request | None:
    """The request that has waited longest, if one waits."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["next"])
    return None if row is None else Request.from_row(row)


def note(database: Database, request_id: int, why: str, result: Mapping[str, Any] | None = None) -> None:
    """Say of a request that waits how far it is, or what came of it before its generation is switched to."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["note"], id=request_id, why=plain(why), result=result or {})


def finish(
    database: Database, request_id: int, state: RequestState, why: str = "", result: Mapping[str, Any] | None = None
) -> None:
    """Say what came of a request; one that was settled meanwhile stays as it is."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["finish"], id=request_id, state=state, why=plain(why), result=result or {})


def lock_rollbacks(cursor: Cursor) -> Request | None:
    """The latest rollback that was asked for; nobody who locks too asks for another until the transaction's end."""
    cursor.execute(_SQL["lock_all"])
    return latest_rollback(cursor)


def latest_rollback(cursor: Cursor) -> Request | None:
    """The latest rollback that was asked for, if there was one."""
    row = cursor.row(_SQL["latest_rollback"])
    return None if row is None else Request.from_row(row)

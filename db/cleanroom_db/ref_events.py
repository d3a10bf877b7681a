"""Ref events: tags and commits as they were seen. A row here is what starts a release."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from cleanroom_base.errors import InputError
from cleanroom_db.connection import Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import RefChange, RefEventState, SignatureState, TagKind
from cleanroom_recipes.model import RefKind

_SQL = load("ref_events")
MESSAGE_LIMIT = 4096

# A package's version is ASCII; '#' and '%' stand for '..' and ':' in tags of Debian packages (DEP-14).
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+%#@/=,-]*")


@dataclass(frozen=True)
class RefEvent(Entity):
    """Something that happened to a ref. `commit` None: to be looked up by the ref watch."""

    id: int
    product: str
    kind: RefKind
    ref: str
    commit: str | None
    previous_commit: str | None
    change: RefChange
    tag_kind: TagKind
    tagger: str | None
    message: str | None
    signature: SignatureState
    branch: str | None
    tagged_at: datetime | None
    recorded_at: datetime
    recorded_by: str
    state: RefEventState
    why: str
    settled_at: datetime | None


@dataclass(frozen=True)
class RefDetails:
    """What the repository says about a ref."""

    commit: str
    tag_kind: TagKind = TagKind.UNKNOWN
    tagger: str | None = None
    message: str | None = None
    signature: SignatureState = SignatureState.UNCHECKED
    tagged_at: datetime | None = None


@dataclass(frozen=True)
class NewRef:
    """A ref event to record. `details` None: only the name is known, or the ref is deleted."""

    ref: str
    details: RefDetails | None = None
    kind: RefKind = RefKind.TAG
    change: RefChange = RefChange.CREATED
    previous_commit: str | None = None
    branch: str | None = None
    state: RefEventState = RefEventState.RECORDED
    why: str = ""


def correlation(event_id: int) -> str:
    """By what log records of all processes are known to belong to a ref event."""
    return f"ref-{event_id}"


def name_problem(ref: str) -> str | None:
    """Why a ref of this name cannot become a release, or None.

    The name goes into versions, pages and e-mails, so it must be what it looks like.
    """
    if not ref:
        return "the name is empty"
    if len(ref) > 255:
        return f"the name has {len(ref)} characters, 255 are the limit"
    if ref.startswith("-"):
        return "the name begins with a dash"
    if not _NAME.fullmatch(ref):
        return "the name has characters other than ASCII letters, digits and . _ + % # @ / = , -"
    return None


def record_many(database: Database, product: str, refs: Iterable[NewRef], *, recorded_by: str) -> list[int]:
    """Record refs in one transaction and return the new rows' ids; a ref that waits already is left out."""
    now = datetime.now(UTC)
    values = [_values(product, new, recorded_by, now) for new in refs]
    with database.transaction() as cursor:
        return [row["id"] for row in cursor.insert_many(_SQL["record_many"], values)]


def list_latest(database: Database, product: str | None = None, *, limit: int = 100) -> list[RefEvent]:
    """The latest events, newest first, of one product or of all."""
    with database.transaction() as cursor:
        return [RefEvent.from_row(row) for row in cursor.rows(_SQL["list"], product=product, limit=limit)]


def get(database: Database, event_id: int) -> RefEvent:
    """One event. Raises InputError."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["get"], id=event_id)
    if row is None:
        raise InputError(f"there is no ref event {event_id}")
    return RefEvent.from_row(row)


def recorded(database: Database, event_ids: Iterable[int], *, limit: int = 200) -> list[RefEvent]:
    """Those of some events that wait, oldest first."""
    with database.transaction() as cursor:
        return [RefEvent.from_row(row) for row in cursor.rows(_SQL["recorded"], ids=list(event_ids), limit=limit)]


def latest(database: Database, product: str, ref: str) -> RefEvent:
    """The latest event of a ref. Raises InputError."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["latest"], product=product, ref=plain(ref))
    if row is None:
        raise InputError(f"nothing was recorded about {ref} of {product}")
    return RefEvent.from_row(row)


def unresolved(database: Database, *, limit: int = 1000) -> list[RefEvent]:
    """Waiting events whose commit is not known, oldest first."""
    with database.transaction() as cursor:
        return [RefEvent.from_row(row) for row in cursor.rows(_SQL["unresolved"], limit=limit)]


def resolve(database: Database, event_id: int, details: RefDetails) -> bool:
    """Fill in what the repository says; False if the event waits no more."""
    with database.transaction() as cursor:
        return (
            cursor.execute(
                _SQL["resolve"],
                id=event_id,
                commit=details.commit,
                tag_kind=details.tag_kind,
                tagger=_shown(details.tagger),
                message=_shown(details.message),
                signature=details.signature,
                tagged_at=details.tagged_at,
            )
            == 1
        )


def settle(database: Database, event_ids: Iterable[int], state: RefEventState, why: str) -> None:
    """End the wait of some events as `ignored` or `refused` (`why` is required) or `claimed`."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["settle"], ids=list(event_ids), state=state, why=plain(why))


def postpone(database: Database, event_id: int, seconds: float, why: str) -> None:
    """Let an event wait for `seconds` more, because the infrastructure is not ready for it."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["postpone"], id=event_id, seconds=seconds, why=plain(why))


def latest_tags(database: Database, product: str) -> Mapping[str, str | None]:
    """Every tag that was ever recorded with the commit last seen; None: seen deleted."""
    with database.transaction() as cursor:
        return {row["ref"]: row["commit"] for row in cursor.rows(_SQL["latest_tags"], product=product)}


def latest_tips(database: Database, product: str) -> Mapping[str, str]:
    """The commit last recorded of every watched branch."""
    with database.transaction() as cursor:
        return {row["branch"]: row["commit"] for row in cursor.rows(_SQL["latest_tips"], product=product)}


def known_commits(database: Database, product: str, commits: Iterable[str]) -> set[str]:
    """Those of `commits` that are recorded as commits."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["known_commits"], product=product, commits=list(commits))
    return {row["commit"] for row in rows}


def _values(product: str, new: NewRef, recorded_by: str, now: datetime) -> tuple[object, ...]:
    details = new.details
    return (
        product,
        new.kind,
        new.ref,
        details.commit if details else None,
        new.previous_commit,
        new.change,
        details.tag_kind if details else TagKind.UNKNOWN,
        _shown(details.tagger) if details else None,
        _shown(details.message) if details else None,
        details.signature if details else SignatureState.UNCHECKED,
        new.branch,
        details.tagged_at if details else None,
        recorded_by,
        new.state,
        plain(new.why),
        None if new.state is RefEventState.RECORDED else now,
    )


def _shown(text: str | None) -> str | None:
    return None if text is None else plain(text)[:MESSAGE_LIMIT]

"""Record refs by name: for git hooks, webhooks and people."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cleanroom_base.errors import InfrastructureError, InputError, Problem
from cleanroom_base.settings import Settings
from cleanroom_db import products, ref_events
from cleanroom_db.connection import Database
from cleanroom_db.ref_events import NewRef, RefEvent
from cleanroom_db.states import RefEventState
from cleanroom_master.refs import lookup, names
from cleanroom_master.refs.mirror import Mirror
from cleanroom_recipes.model import RefKind

HOOK = "hook"
_TAGS = b"refs/tags/"
_ON_ITS_WAY = (RefEventState.RECORDED, RefEventState.CLAIMED)
_COMMIT = re.compile(rb"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was recorded: the new events' ids, and what is wrong with the refs that were refused."""

    ids: tuple[int, ...]
    problems: tuple[Problem, ...]


def record(settings: Settings, database: Database, product: str, ref: str, *, recorded_by: str = HOOK) -> RefEvent:
    """Record a tag, or a commit by its full id, and look it up at once; return its event.

    What the ref watch has recorded already, and is as it was, is not recorded again. If the repository does not
    answer now, the event waits and the ref watch looks it up later. Raises InputError if the ref is refused (which
    is recorded, too).
    """
    name = os.fsencode(ref).removeprefix(_TAGS)
    seen = _seen(database, product, names.readable(name))
    if seen is not None and _is_still(settings, database, seen):
        return seen
    # Another look may have recorded it meanwhile, and the master may have claimed it.
    with database.transaction():
        products.lock(database, product)
        now = _seen(database, product, names.readable(name))
        if now != seen and now is not None:
            return now
        recorded = record_many(database, product, [name], recorded_by=recorded_by)
    if recorded.problems:
        raise InputError(f"the ref cannot be recorded for {product}", problems=recorded.problems)
    event = ref_events.latest(database, product, names.readable(name))
    if event.state is RefEventState.RECORDED and event.commit is None:
        lookup.look_up(settings, database, products.get(database, product), [event])
        event = ref_events.get(database, event.id)
    if event.state is RefEventState.REFUSED:
        raise InputError(f"the ref {event.ref} of {product} is refused: {event.why}")
    return event


def record_many(database: Database, product: str, refs: Iterable[bytes], *, recorded_by: str = HOOK) -> Recorded:
    """Record tags (names as git has them, with or without `refs/tags/`) and commits in one transaction.

    The ref watch looks them up. A name that cannot become a release is recorded as refused; what waits already
    is not recorded twice. Raises UnknownProduct.
    """
    new = [_new(ref.removeprefix(_TAGS)) for ref in refs]
    with database.transaction():
        products.lock(database, product)
        ids = ref_events.record_many(database, product, new, recorded_by=recorded_by)
    problems = (Problem(one.ref, one.why) for one in new if one.state is RefEventState.REFUSED)
    return Recorded(tuple(ids), tuple(problems))


def _seen(database: Database, product: str, ref: str) -> RefEvent | None:
    """The latest event of a ref, if that is on its way or became a release, and its commit is known."""
    try:
        event = ref_events.latest(database, product, ref)
    except InputError:
        return None
    return event if event.commit is not None and event.state in _ON_ITS_WAY else None


def _is_still(settings: Settings, database: Database, event: RefEvent) -> bool:
    """Whether the repository shows the ref where it was seen; while it does not answer, nothing else is known."""
    if event.kind is RefKind.COMMIT:
        return True
    product = products.get(database, event.product)
    try:
        tag = Mirror(settings, product.name, product.url).remote_refs().tags.get(event.ref.encode())
    except InfrastructureError:
        return True
    return tag is not None and tag.commit == event.commit


def _new(name: bytes) -> NewRef:
    if _COMMIT.fullmatch(name):
        return NewRef(name.decode(), kind=RefKind.COMMIT)
    problem = names.problem(name)
    if problem is None:
        return NewRef(name.decode())
    return NewRef(names.readable(name), state=RefEventState.REFUSED, why=problem)

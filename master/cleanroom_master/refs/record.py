"""Record refs by name: for git hooks, webhooks and people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cleanroom_base.errors import Problem
from cleanroom_db import products, ref_events
from cleanroom_db.connection import Database
from cleanroom_db.ref_events import NewRef
from cleanroom_db.states import RefEventState
from cleanroom_master.refs import names


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was recorded: the new events' ids, and what is wrong with the refs that were refused."""

    ids: tuple[int, ...]
    problems: tuple[Problem, ...]


def record(database: Database, product: str, refs: Iterable[bytes], *, recorded_by: str) -> Recorded:
    """Record tags (names as git has them, with or without `refs/tags/`) in one transaction.

    The ref watch looks their commits up. A name that cannot become a release is recorded as refused; a tag that
    waits already is not recorded twice. Raises UnknownProduct.
    """
    events = []
    problems = []
    for ref in refs:
        name = ref.removeprefix(b"refs/tags/")
        problem = names.problem(name) if name else "the name is empty"
        readable = names.readable(name) if name else "(empty)"
        if problem is None:
            events.append(NewRef(readable))
        else:
            events.append(NewRef(readable, state=RefEventState.REFUSED, why=problem))
            problems.append(Problem(readable, problem))
    with database.transaction():
        products.lock(database, product)
        ids = ref_events.record_many(database, product, events, recorded_by=recorded_by)
    return Recorded(tuple(ids), tuple(problems))

"""Look up in the repository what was recorded by name only: by hand in SQL, by a git hook, by a person."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.log_records import about
from cleanroom_base.settings import Settings
from cleanroom_db import products, ref_events
from cleanroom_db.connection import Database
from cleanroom_db.products import Product
from cleanroom_db.ref_events import RefDetails, RefEvent
from cleanroom_db.states import RefEventState
from cleanroom_master.refs.mirror import Mirror, RemoteRef
from cleanroom_recipes.model import RefKind

RETRY_SECONDS = 30.0

_log = logging.getLogger(__name__)


def tell(mirror: Mirror, refs: Mapping[str, RemoteRef]) -> dict[str, RefDetails | InputError]:
    """Fetch tags and return what each of them says, or why it says nothing.

    One that changed in the meantime is left out. Raises InfrastructureError.
    """
    kept = mirror.fetch({remote.name: remote.object_id for remote in refs.values()})
    told: dict[str, RefDetails | InputError] = {}
    with mirror.objects() as objects:
        for ref, remote in refs.items():
            if remote.object_id in kept:
                try:
                    told[ref] = objects.tag(remote.object_id, ref)
                except InputError as error:
                    told[ref] = error
    return told


def waiting(database: Database) -> dict[str, list[RefEvent]]:
    """The events that are to be looked up now, by product."""
    by_product: dict[str, list[RefEvent]] = {}
    for event in ref_events.unresolved(database):
        by_product.setdefault(event.product, []).append(event)
    return by_product


def look_up(settings: Settings, database: Database, product: Product, events: list[RefEvent]) -> None:
    """Look up events of one product: each is then resolved, refused, or waits for another try."""
    try:
        found = _found(Mirror(settings, product.name, product.url), product, events)
    except InputError as error:
        found = {event.id: error for event in events}
    except InfrastructureError as error:
        for event in events:
            ref_events.postpone(database, event.id, RETRY_SECONDS, error.message)
        return
    with database.transaction():
        # While a look at the repository is being recorded, what it takes for waiting must not go on its way.
        products.lock(database, product.name)
        for event in events:
            details = found.get(event.id)
            if details is None:
                ref_events.postpone(database, event.id, RETRY_SECONDS, "the tag changed while it was fetched")
            elif isinstance(details, InputError):
                ref_events.settle(database, [event.id], RefEventState.REFUSED, details.message)
            else:
                ref_events.resolve(database, event.id, details)
    for event in events:
        details = found.get(event.id)
        said = "changed while it was fetched" if details is None else f"is refused: {details}"
        if isinstance(details, RefDetails):
            said = f"was looked up at {details.commit}"
        told = about(correlation=ref_events.correlation(event.id), product=event.product, ref=event.ref)
        _log.info("%s %s %s", event.product, event.ref, said, extra=told)


def _found(mirror: Mirror, product: Product, events: list[RefEvent]) -> dict[int, RefDetails | InputError]:
    """What the repository says about the events' refs, by their ids."""
    if product.removed_at is not None:
        raise InputError("the product was removed")
    remote = mirror.remote_refs()
    found: dict[int, RefDetails | InputError] = {}
    tags: dict[str, RemoteRef] = {}
    for event in events:
        problem = ref_events.name_problem(event.ref)
        there = remote.tags.get(event.ref.encode())
        if problem is not None:
            found[event.id] = InputError(problem)
        elif event.kind is RefKind.COMMIT:
            found[event.id] = _commit(mirror, event.ref)
        elif there is None:
            found[event.id] = InputError(f"there is no tag {event.ref} in {product.url}")
        else:
            tags[event.ref] = there
    told = tell(mirror, tags) if tags else {}
    return found | {event.id: told[event.ref] for event in events if event.ref in told}


def _commit(mirror: Mirror, commit: str) -> RefDetails | InputError:
    if not mirror.keep_commit(commit):
        return InputError(f"there is no commit {commit} in {mirror.url}")
    try:
        with mirror.objects() as objects:
            return objects.commit(commit)
    except InputError as error:
        return error

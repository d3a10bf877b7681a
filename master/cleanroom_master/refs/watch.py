"""The watch: look at every repository now and then, look up what was recorded by name, never stop.

A repository that cannot be read says so in its product's row and holds up no other.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from cleanroom_base.errors import CleanroomError, InfrastructureError, InputError
from cleanroom_base.settings import Settings
from cleanroom_db import products, ref_events, services
from cleanroom_db.connection import Database
from cleanroom_db.listen import REF_EVENT, Listener
from cleanroom_db.products import Product
from cleanroom_db.ref_events import NewRef, RefDetails, RefEvent
from cleanroom_db.states import RefChange, RefEventState
from cleanroom_master.refs import changes
from cleanroom_master.refs.mirror import Mirror, Remote, RemoteRef
from cleanroom_recipes.model import RefKind

SERVICE = "refs"
RECORDED_BY = "poll"
PARALLEL = 4
HEARTBEAT = 10.0
RETRY_SECONDS = 30.0

_log = logging.getLogger(__name__)


def look(database: Database, settings: Settings, product: Product, *, existing: bool = False) -> list[int]:
    """Look at a product's repository, record what is new, and return the new events' ids.

    At the first look, what is there is only noted and starts no release, unless `existing`.
    Raises InputError (a URL that is not allowed) and InfrastructureError (a repository that does not answer).
    """
    mirror = Mirror(settings, product.name, product.url)
    remote = mirror.remote_refs()
    tags = changes.matching(remote.tags, product.tag_patterns)
    first = product.watched_at is None and not existing
    told: Mapping[str, RefDetails | InputError] = {}
    if not first:
        told = _tell(mirror, changes.unseen(tags, ref_events.latest_tags(database, product.name)))
    commits = _branch_events(database, mirror, product, remote, baseline=first)
    with database.transaction():
        # Another recorder may have been here since; what it recorded is no news.
        products.lock(database, product.name)
        seen = ref_events.latest_tags(database, product.name)
        events = changes.tag_events(tags, seen, told, baseline=first)
        ids = ref_events.record_many(database, product.name, [*events, *commits], recorded_by=RECORDED_BY)
        products.looked(database, product.name, None)
    return ids


def resolve_waiting(database: Database, settings: Settings) -> int:
    """Look up the commits of events that were recorded by name only; return how many there were."""
    waiting = ref_events.unresolved(database)
    by_product: dict[str, list[RefEvent]] = {}
    for event in waiting:
        by_product.setdefault(event.product, []).append(event)
    for name, events in by_product.items():
        product = products.get(database, name)
        try:
            _resolve(database, settings, product, events)
        except InputError as error:
            ref_events.settle(database, [event.id for event in events], RefEventState.REFUSED, error.message)
        except InfrastructureError as error:
            for event in events:
                ref_events.postpone(database, event.id, RETRY_SECONDS, error.message)
    return len(waiting)


class Watch:
    """The process's loop."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """`database` is used as the role `refs`."""
        self._database = database
        self._settings = settings
        self._listener = Listener(database.url, [REF_EVENT])
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End `run` soon; safe in a signal handler and in another thread."""
        self._stopping.set()
        self._listener.interrupt()

    def run(self) -> None:
        """Watch until `stop`."""
        next_look = 0.0
        while not self._stopping.is_set():
            try:
                services.heartbeat(self._database, SERVICE, "running", os.getpid())
                resolve_waiting(self._database, self._settings)
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + self._settings.number("refs.poll")
                    self._look_at_all()
            except InfrastructureError as error:
                _log.warning("%s", error)
            self._listener.wait(min(HEARTBEAT, max(next_look - time.monotonic(), 0.1)))
        self._listener.close()

    def _look_at_all(self) -> None:
        watched = products.list_watched(self._database)
        with ThreadPoolExecutor(PARALLEL) as threads:
            for product in watched:
                threads.submit(self._look_at, product)

    def _look_at(self, product: Product) -> None:
        if self._stopping.is_set():
            return
        try:
            recorded = look(self._database, self._settings, product)
        except CleanroomError as error:
            _log.warning("%s: %s", product.name, error)
            self._note(product, str(error))
        except Exception as error:
            # A repository is somebody else's: whatever it makes us stumble over, the watch goes on.
            _log.exception("%s", product.name)
            self._note(product, f"the watch stumbled: {error!r}")
        else:
            if recorded:
                _log.info("%s: recorded %d refs", product.name, len(recorded))

    def _note(self, product: Product, error: str) -> None:
        try:
            products.looked(self._database, product.name, error)
        except CleanroomError as problem:
            _log.warning("%s: %s", product.name, problem)


def _tell(mirror: Mirror, refs: Mapping[str, RemoteRef]) -> dict[str, RefDetails | InputError]:
    """Fetch tags and return what each of them says, or why it says nothing."""
    kept = mirror.fetch({remote.name: remote.object_id for remote in refs.values()})
    told: dict[str, RefDetails | InputError] = {}
    with mirror.objects() as objects:
        for ref, remote in refs.items():
            if remote.object_id not in kept:
                continue
            try:
                told[ref] = objects.tag(remote.object_id, ref)
            except InputError as error:
                told[ref] = error
    return told


def _branch_events(
    database: Database, mirror: Mirror, product: Product, remote: Remote, *, baseline: bool
) -> list[NewRef]:
    """The events for new commits of the watched branches."""
    tips = ref_events.latest_tips(database, product.name)
    events: list[NewRef] = []
    for branch in product.branches:
        head = remote.heads.get(branch.encode())
        if head is None or tips.get(branch) == head.commit:
            continue
        if not mirror.fetch({head.name: head.commit}):
            continue
        before = tips.get(branch)
        commits = [head.commit] if before is None else mirror.commits_since(before, head.commit)
        known = ref_events.known_commits(database, product.name, commits)
        with mirror.objects() as objects:
            details = [objects.commit(commit) for commit in commits if commit not in known]
        events += changes.commit_events(branch, details, baseline=baseline)
    return events


def _resolve(database: Database, settings: Settings, product: Product, events: list[RefEvent]) -> None:
    """Look up events of one product. Raises InfrastructureError if the repository does not answer."""
    if product.removed_at is not None:
        raise InputError("the product was removed")
    mirror = Mirror(settings, product.name, product.url)
    remote = mirror.remote_refs()
    tags = {event.ref: event for event in events if event.kind is RefKind.TAG}
    there = {ref: remote.tags[ref.encode()] for ref in tags if ref.encode() in remote.tags}
    told = _tell(mirror, {ref: found for ref, found in there.items() if ref_events.name_problem(ref) is None})
    with database.transaction():
        products.lock(database, product.name)
        for ref, event in tags.items():
            _settle_tag(database, product, event, there.get(ref), told.get(ref))
    for event in events:
        if event.kind is RefKind.COMMIT:
            _settle_commit(database, mirror, event)


def _settle_tag(
    database: Database,
    product: Product,
    event: RefEvent,
    remote: RemoteRef | None,
    details: RefDetails | InputError | None,
) -> None:
    problem = ref_events.name_problem(event.ref)
    if event.change is not RefChange.CREATED:
        ref_events.settle(database, [event.id], RefEventState.IGNORED, f"the ref was {event.change}")
    elif problem is not None:
        ref_events.settle(database, [event.id], RefEventState.REFUSED, problem)
    elif remote is None:
        why = f"there is no tag {event.ref} in {product.url}"
        ref_events.settle(database, [event.id], RefEventState.REFUSED, why)
    elif details is None:
        ref_events.postpone(database, event.id, RETRY_SECONDS, "the tag changed while it was fetched")
    elif isinstance(details, InputError):
        ref_events.settle(database, [event.id], RefEventState.REFUSED, details.message)
    else:
        ref_events.resolve(database, event.id, details)


def _settle_commit(database: Database, mirror: Mirror, event: RefEvent) -> None:
    if not mirror.keep_commit(event.ref):
        why = f"there is no commit {event.ref} in {mirror.url}"
        ref_events.settle(database, [event.id], RefEventState.REFUSED, why)
        return
    try:
        with mirror.objects() as objects:
            details = objects.commit(event.ref)
    except InputError as error:
        ref_events.settle(database, [event.id], RefEventState.REFUSED, error.message)
    else:
        ref_events.resolve(database, event.id, details)

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
from cleanroom_db.ref_events import NewRef, RefDetails
from cleanroom_master.refs import changes
from cleanroom_master.refs.lookup import look_up_waiting, tell
from cleanroom_master.refs.mirror import Mirror, Remote
from cleanroom_master.refs.record import record

__all__ = ["Watch", "look", "record"]

SERVICE = "refs"
RECORDED_BY = "poll"
PARALLEL = 4
HEARTBEAT = 10.0

_log = logging.getLogger(__name__)


def look(settings: Settings, database: Database, product: Product) -> list[int]:
    """Look at a product's repository, record what is new, and return the new events' ids.

    At the first look, what is there is only noted and starts no release, unless the product says otherwise.
    Raises InputError (a URL that is not allowed) and InfrastructureError (a repository that does not answer).
    """
    mirror = Mirror(settings, product.name, product.url)
    remote = mirror.remote_refs()
    tags = changes.matching(remote.tags, product.tag_patterns)
    baseline = product.watched_at is None and not product.existing
    unseen = {} if baseline else changes.unseen(tags, ref_events.latest_tags(database, product.name))
    told: Mapping[str, RefDetails | InputError] = tell(mirror, unseen) if unseen else {}
    commits = _branch_events(database, mirror, product, remote, baseline=baseline)
    with database.transaction():
        # Another recorder may have been here since; what it recorded is no news.
        products.lock(database, product.name)
        seen = ref_events.latest_tags(database, product.name)
        events = changes.tag_events(tags, seen, told, baseline=baseline)
        ids = ref_events.record_many(database, product.name, [*events, *commits], recorded_by=RECORDED_BY)
        missing = ", ".join(sorted(set(unseen) - set(told))[:10])
        problem = f"not fetched, because they changed meanwhile or are broken: {missing}" if missing else None
        products.looked(database, product.name, problem)
    return ids


class Watch:
    """The process's loop."""

    def __init__(self, settings: Settings, database: Database) -> None:
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
                look_up_waiting(self._settings, self._database)
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
            recorded = look(self._settings, self._database, product)
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

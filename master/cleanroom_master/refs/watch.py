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
from cleanroom_base.health import Pulse
from cleanroom_base.log_records import about
from cleanroom_base.settings import Settings
from cleanroom_db import products, ref_events, services, webhooks
from cleanroom_db.connection import Database
from cleanroom_db.listen import LOOK, REF_EVENT, Listener
from cleanroom_db.products import Product
from cleanroom_db.ref_events import NewRef, RefDetails, RefEvent
from cleanroom_master import housekeeping
from cleanroom_master.refs import changes, lookup
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
    before = ref_events.latest_tags(database, product.name)
    remote = mirror.remote_refs()
    tags = changes.matching(remote.tags, product.tag_patterns)
    baseline = product.watched_at is None and not product.existing
    unseen = {} if baseline else changes.unseen(tags, before)
    told: Mapping[str, RefDetails | InputError] = lookup.tell(mirror, unseen) if unseen else {}
    commits = _branch_events(database, mirror, product, remote, baseline=baseline)
    with database.transaction():
        products.lock(database, product.name)
        seen = ref_events.latest_tags(database, product.name)
        events = changes.tag_events(*changes.undisturbed(tags, before, seen), told, baseline=baseline)
        ids = ref_events.record_many(database, product.name, [*events, *commits], recorded_by=RECORDED_BY)
        missing = ", ".join(sorted(set(unseen) - set(told))[:10])
        problem = f"not fetched, because they changed meanwhile or are broken: {missing}" if missing else None
        products.looked(database, product.name, problem)
    return ids


class Watch:
    """The process's loop. Repositories are looked at side by side: a slow one holds up no other."""

    def __init__(self, settings: Settings, database: Database, pulse: Pulse | None = None) -> None:
        """`database` is used as the role `refs`; `pulse` is told that the loop turns."""
        self._pulse = pulse or Pulse(SERVICE)
        self._settings = settings
        self._database = database
        self._listener = Listener(database.url, [REF_EVENT, LOOK])
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(PARALLEL)
        self._busy: set[str] = set()
        self._housekeeping = housekeeping.occasion(settings, SERVICE)

    def stop(self) -> None:
        """End `run` soon; safe in a signal handler and in another thread."""
        self._stopping.set()
        self._listener.interrupt()

    def run(self) -> None:
        """Watch until `stop`. A look that goes on at the end is given up; the next start does it again."""
        next_look = 0.0
        while not self._stopping.is_set():
            now = time.monotonic()
            try:
                services.heartbeat(self._database, SERVICE, "running", os.getpid())
                self._begin_all(look_too=now >= next_look)
                if now >= next_look:
                    next_look = now + self._settings.number("refs.poll")
                if self._housekeeping.due():
                    housekeeping.refs(self._settings, self._database, remove=True)
            except InfrastructureError as error:
                _log.warning("%s", error)
            pause = min(HEARTBEAT, max(next_look - time.monotonic(), 0.1))
            self._pulse.turn("a recorded ref, or the next look", within=pause)
            self._listener.wait(pause)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _begin_all(self, *, look_too: bool) -> None:
        """Begin what is to be done; a product that is at work already has its turn later."""
        waiting = lookup.waiting(self._database)
        wished = webhooks.wishes(self._database)
        watched = products.list_watched(self._database) if look_too else []
        for name in {*waiting, *wished, *(product.name for product in watched)} - self._busy:
            self._busy.add(name)
            wish = wished.get(name)
            self._threads.submit(
                self._work, name, waiting.get(name, []), look_too=look_too or wish is not None, wish=wish
            )

    def _work(self, name: str, events: list[RefEvent], *, look_too: bool, wish: int | None) -> None:
        try:
            product = products.get(self._database, name)
            if events:
                lookup.look_up(self._settings, self._database, product, events)
            if look_too and product.removed_at is None:
                self._look_at(product)
            if wish is not None:
                webhooks.granted(self._database, name, wish)
        except Exception:
            # A repository is somebody else's: whatever it makes us stumble over, the watch goes on.
            _log.exception("%s", name, extra=about(product=name))
        finally:
            self._busy.discard(name)

    def _look_at(self, product: Product) -> None:
        """Look at a product; what goes wrong is written into its row."""
        try:
            recorded = look(self._settings, self._database, product)
        except CleanroomError as error:
            _log.warning("%s: %s", product.name, error, extra=about(product=product.name))
            products.looked(self._database, product.name, str(error))
        except Exception as error:
            products.looked(self._database, product.name, f"the watch stumbled: {error!r}")
            raise
        else:
            if recorded:
                _log.info("%s: recorded %d refs", product.name, len(recorded), extra=about(product=product.name))
                for event in ref_events.recorded(self._database, recorded):
                    told = about(correlation=ref_events.correlation(event.id), product=event.product, ref=event.ref)
                    _log.info("%s %s was recorded at %s", event.product, event.ref, event.commit, extra=told)


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

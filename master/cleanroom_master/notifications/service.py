"""The process that tells others: woken by NOTIFY, right by polling, safe to be killed at any time.

A message is leased before it is sent and settled afterwards. Who is killed in between leaves it leased; once that
lease is over it is sent again, with the same key.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from cleanroom_base.errors import CleanroomError, InfrastructureError, InputError
from cleanroom_base.health import Pulse
from cleanroom_base.log_records import Value, about
from cleanroom_base.settings import Settings
from cleanroom_db import notifications, ref_events, services
from cleanroom_db.connection import Database
from cleanroom_db.listen import NOTIFICATION, Listener
from cleanroom_db.notifications import Leased
from cleanroom_db.states import NotificationEvent, NotificationState
from cleanroom_master import housekeeping
from cleanroom_master.notifications import endpoints, telling
from cleanroom_master.notifications.endpoints import Endpoint
from cleanroom_master.notifications.sending import NotDelivered, Sender

SERVICE = "notifications"
PARALLEL = 4
_HEARTBEAT = 10.0
_LEAST_WAIT = 0.05
_LONGEST_PAUSE = 3600.0

_log = logging.getLogger(__name__)


class Notifier:
    """The process's loop. Endpoints are told side by side, each one message at a time: a slow one holds up no other."""

    def __init__(
        self, settings: Settings, database: Database, *, lease: float | None = None, pulse: Pulse | None = None
    ) -> None:
        """`database` is used as the role `notifications`; `lease`: seconds, longer than it takes to send a message;
        `pulse` is told that the loop turns."""
        self._pulse = pulse or Pulse(SERVICE)
        self._settings = settings
        self._database = database
        self._sender = Sender(settings)
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._lease = lease or 60.0 + 6 * settings.number("notifications.timeout")
        self._listener = Listener(database.url, [NOTIFICATION])
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(PARALLEL, thread_name_prefix="send")
        self._busy: set[str] = set()
        self._endpoints: dict[str, Endpoint] = {}
        self._read: tuple[int, int] | None = None
        self._problem = ""
        self._housekeeping = housekeeping.occasion(settings, SERVICE)

    def stop(self) -> None:
        """End `run` soon; safe in a signal handler and in another thread."""
        self._stopping.set()
        # It is closed once it has ended.
        with contextlib.suppress(OSError):
            self._listener.interrupt()

    def run(self) -> None:
        """Tell until `stop`; what is being sent then is sent to its end."""
        while not self._stopping.is_set():
            wait = _HEARTBEAT
            try:
                services.heartbeat(self._database, SERVICE, "running", os.getpid(), self._problem)
                self.begin()
                if self._housekeeping.due():
                    housekeeping.notifications(self._settings, self._database, remove=True)
                due = notifications.next_due(self._database)
                if due is not None and len(self._busy) < PARALLEL:
                    wait = min(max(due, 1.0 if self._busy else _LEAST_WAIT), _HEARTBEAT)
            except InfrastructureError as error:
                _log.warning("%s", error)
            self._pulse.turn("changes to tell of, or a message that is due", within=wait)
            self._listener.wait(wait)
        self._threads.shutdown(cancel_futures=True)
        self._listener.close()

    def begin(self) -> int:
        """Make messages of what is new, and begin to send what is due; returns how many are being sent."""
        self._read_endpoints()
        telling.tell(self._database, self._endpoints, self._settings.web_url)
        begun = 0
        while len(self._busy) < PARALLEL:
            one = notifications.lease(self._database, self._owner, self._lease, self._busy)
            if one is None:
                break
            self._busy.add(one.endpoint)
            self._threads.submit(self._work, one)
            begun += 1
        return begun

    def _work(self, one: Leased) -> None:
        try:
            deliver(self._settings, self._database, self._sender, self._endpoints, one, self._owner)
        except Exception:
            # Left leased: it is tried again once the lease is over.
            _log.exception("notification %d for %s", one.id, one.endpoint, extra=_about(one))
        finally:
            self._busy.discard(one.endpoint)
            self._listener.interrupt()

    def _read_endpoints(self) -> None:
        """Read whom the site tells, when that was changed; while it is not valid, what was valid stays."""
        file = self._settings.site / endpoints.FILE
        try:
            found = file.stat()
            now = (found.st_mtime_ns, found.st_size)
        except OSError:
            now = (0, 0)
        if now == self._read:
            return
        self._read = now
        try:
            self._endpoints = endpoints.load(self._settings)
            self._problem = ""
        except InputError as error:
            self._problem = str(error)
            _log.error("%s", error)


def deliver(
    settings: Settings,
    database: Database,
    sender: Sender,
    known: Mapping[str, Endpoint],
    one: Leased,
    owner: str,
) -> None:
    """Send a leased message and note what came of that."""
    endpoint = known.get(one.endpoint)
    if endpoint is None:
        notifications.settle(
            database, one, owner, NotificationState.FAILED, f"there is no endpoint {one.endpoint} any more"
        )
        return
    # A status tells how it is now, not how it was when this was written: so that the last word is right.
    about = one.event is NotificationEvent.STATUS and one.release_id is not None
    subject = notifications.subject(database, one.release_id) if about and one.release_id is not None else None
    try:
        sender.send(endpoint, one, subject)
    except CleanroomError as error:
        _log.warning("notification %d for %s: %s", one.id, one.endpoint, error.message, extra=_about(one))
        if one.tries >= settings.whole("notifications.attempts"):
            notifications.settle(database, one, owner, NotificationState.FAILED, error.message)
            return
        pause = min(settings.number("notifications.pause") * 2 ** (one.tries - 1), _LONGEST_PAUSE)
        asked = error.pause if isinstance(error, NotDelivered) else None
        notifications.postpone(database, one, owner, error.message, max(pause, asked or 0.0))
    else:
        notifications.settle(database, one, owner, NotificationState.DELIVERED)
        _log.info("notification %d (%s) was taken by %s", one.id, one.event, one.endpoint, extra=_about(one))


def _about(one: Leased) -> dict[str, dict[str, Value]]:
    """What log records of a message are about."""
    correlation = None if one.ref_event_id is None else ref_events.correlation(one.ref_event_id)
    content = {name: str(one.content[name]) for name in ("product", "ref") if one.content.get(name)}
    return about(correlation=correlation, release=one.release_id, **content)

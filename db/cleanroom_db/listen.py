"""Be woken by NOTIFY. Whoever listens also polls: a message can be lost, a row cannot."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterable
from typing import Self

from cleanroom_base.errors import InfrastructureError
from cleanroom_db.connection import NotificationConnection

REF_EVENT = "cleanroom_ref_event"
ATTEMPT = "cleanroom_attempt"
PUBLICATION = "cleanroom_publication"
CHANGE = "cleanroom_change"
TRIAL = "cleanroom_trial"
REQUEST = "cleanroom_request"
BISECTION = "cleanroom_bisection"
GENERATION = "cleanroom_generation"
CHANNELS = (REF_EVENT, ATTEMPT, PUBLICATION, CHANGE, TRIAL, REQUEST, BISECTION, GENERATION)
# Of these only the processes hear that they are for.
NOTIFICATION = "cleanroom_notification"
LOOK = "cleanroom_look"
HOST = "cleanroom_host"

HEARTBEAT = 30.0
RECONNECT_PAUSE = 1.0


class Listener:
    """A connection of its own that listens; it comes back by itself after the database was away."""

    def __init__(self, url: str, channels: Iterable[str]) -> None:
        """Nothing is connected before the first `wait`."""
        self._url = url
        self._channels = frozenset(channels)
        self._connection: NotificationConnection | None = None
        self._waker, self._woken = socket.socketpair()
        self._seen = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, timeout: float) -> set[str]:
        """Wait for up to `timeout` seconds and return the channels with news, none at the end of the time.

        After every (re)connection all channels count as having news, since messages may have been missed.
        """
        return set(self.messages(timeout))

    def messages(self, timeout: float) -> dict[str, set[str]]:
        """As `wait`, with what the messages of each channel say; nothing after a (re)connection: it may be anything."""
        deadline = time.monotonic() + timeout
        while True:
            if self._connection is None and self._connect():
                return {channel: set() for channel in self._channels}
            left = deadline - time.monotonic()
            if left <= 0:
                return {}
            news = self._listen(min(left, HEARTBEAT)) if self._connection else None
            if news:
                return news
            if self._interrupted(0 if self._connection else min(left, RECONNECT_PAUSE)):
                return {}

    def interrupt(self) -> None:
        """End a `wait` in another thread, or the next one, at once; one that was closed meanwhile waits no more."""
        with contextlib.suppress(OSError):
            self._waker.send(b"!")

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._waker.close()
        self._woken.close()

    def _connect(self) -> bool:
        try:
            self._connection = NotificationConnection(self._url, self._channels)
        except InfrastructureError:
            return False
        self._seen = time.monotonic()
        return True

    def _listen(self, timeout: float) -> dict[str, set[str]]:
        """News that come within `timeout` seconds; a connection that is broken is dropped."""
        assert self._connection is not None
        try:
            news = self._connection.news()
            if not news:
                select.select([self._connection.fileno(), self._woken.fileno()], [], [], timeout)
                news = self._connection.news()
            if time.monotonic() - self._seen > HEARTBEAT:
                self._connection.check()
                self._seen = time.monotonic()
        except InfrastructureError:
            with contextlib.suppress(InfrastructureError):
                self._connection.close()
            self._connection = None
            return {}
        found: dict[str, set[str]] = {}
        for channel, text in news:
            found.setdefault(channel, set()).add(text)
        return found

    def _interrupted(self, timeout: float) -> bool:
        readable, _, _ = select.select([self._woken], [], [], timeout)
        return bool(readable and self._woken.recv(4096))

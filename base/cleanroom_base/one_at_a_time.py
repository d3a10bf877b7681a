"""Threads that work side by side, but never two on the same thing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Set
from contextlib import contextmanager


class OneAtATime:
    """Lets those through at once who work on different things; who wants one that is worked on waits for its end."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._worked_on: set[str] = set()

    @contextmanager
    def on(self, things: Set[str]) -> Iterator[None]:
        """Work on these, all of them at once, so that two who want some of each other's never wait for each other."""
        with self._changed:
            self._changed.wait_for(lambda: not things & self._worked_on)
            self._worked_on |= things
        try:
            yield
        finally:
            with self._changed:
                self._worked_on -= things
                self._changed.notify_all()

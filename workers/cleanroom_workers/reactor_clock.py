"""Twisted's reactor keeps its appointments by the time of day: after a clock was set back by an hour, whatever was to
happen in a second happens in an hour. So the appointments are brought forward by as much as the clock went back.
"""

from __future__ import annotations

import threading
import time
from typing import Any

# Seconds between two looks, and what a clock that is put right step by step may go back by between them.
_LOOK = 1.0
_TOLERANCE = 2.0


def watch(reactor: Any) -> None:
    """Look after the clock for as long as this process lives."""
    threading.Thread(target=_watch, args=(reactor,), name="clock", daemon=True).start()


def bring_forward(reactor: Any, seconds: float) -> None:
    """The clock went back by `seconds`: bring appointments forward that were made before, and those alone."""
    before = reactor.seconds() + seconds - _TOLERANCE
    for call in reactor.getDelayedCalls():
        if call.getTime() >= before:
            call.delay(-seconds)


def _watch(reactor: Any) -> None:
    difference = time.time() - time.monotonic()
    while True:
        time.sleep(_LOOK)
        earlier, difference = difference, time.time() - time.monotonic()
        if earlier - difference > _TOLERANCE:
            reactor.callFromThread(bring_forward, reactor, earlier - difference)

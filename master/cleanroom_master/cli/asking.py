"""Asking the publisher: a row is written, and the command waits until it is settled."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

from cleanroom_base.errors import InputError, TimedOut
from cleanroom_db import requests
from cleanroom_db.requests import Request
from cleanroom_db.states import RequestState
from cleanroom_master.cli.frame import Context, printable

_LOOK = 0.1
_TIMEOUT = 300.0
T = TypeVar("T")


def add_timeout(verb: argparse.ArgumentParser) -> None:
    """How long the command waits for the publisher."""
    verb.add_argument("--timeout", type=float, default=_TIMEOUT, metavar="S", help="longest wait in seconds")


def settled(context: Context, request: Request, timeout: float, what: str) -> Request:
    """Wait until a request is settled. Raises InputError where it was refused, TimedOut."""

    def look() -> Request | None:
        now = requests.get(context.database, request.id)
        return None if now.state is RequestState.PENDING else now

    done = wait(context, look, timeout, what)
    if done.state is RequestState.REFUSED:
        raise InputError(f"{what}: refused: {printable(done.why)}")
    return done


def wait(context: Context, look: Callable[[], T | None], timeout: float, what: str) -> T:
    """Look until there is something to see. Raises TimedOut; what was asked stays asked."""
    context.progress(f"{what}: waits for the publisher")
    deadline = time.monotonic() + timeout
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise TimedOut(
                f"{what}: the publisher has not done it within {timeout:.0f} s; it will when it can",
                hint="'cleanroom status' says whether the publisher runs",
            )
        time.sleep(_LOOK)
    return found

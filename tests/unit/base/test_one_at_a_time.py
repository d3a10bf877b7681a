"""Who works on the same thing waits; who works on another does not."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cleanroom_base.one_at_a_time import OneAtATime

_LONG = 30.0


def test_those_who_work_on_different_things_do_so_side_by_side() -> None:
    apart = OneAtATime()
    # Passed only by two who are there together.
    both = threading.Barrier(2, timeout=_LONG)

    def work(thing: str) -> None:
        with apart.on({thing}):
            both.wait()

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(work, thing) for thing in "ab"]:
            done.result(_LONG)


def test_those_who_share_a_thing_work_one_after_the_other() -> None:
    apart = OneAtATime()
    told: list[str] = []

    def follow() -> None:
        with apart.on({"b", "c"}):
            told.append("the second begins")

    with ThreadPoolExecutor(1) as threads:
        with apart.on({"a", "b"}):
            following = threads.submit(follow)
            # Long enough for one who would not wait.
            time.sleep(0.2)
            told.append("the first ends")
        following.result(_LONG)
    assert told == ["the first ends", "the second begins"]


def test_one_that_failed_keeps_nothing() -> None:
    apart = OneAtATime()
    with pytest.raises(ZeroDivisionError), apart.on({"a"}):
        raise ZeroDivisionError
    with apart.on({"a"}):
        pass

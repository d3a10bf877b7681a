"""Who works on the same thing waits; who works on another does not."""

from __future__ import annotations

import threading
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
    at_work: list[str] = []
    together: list[list[str]] = []

    def work(name: str, things: set[str]) -> None:
        for _ in range(200):
            with apart.on(things):
                at_work.append(name)
                together.append(list(at_work))
                at_work.remove(name)

    with ThreadPoolExecutor(3) as threads:
        wanted = {"first": {"a", "b"}, "second": {"b", "c"}, "third": {"b"}}
        for done in [threads.submit(work, name, things) for name, things in wanted.items()]:
            done.result(_LONG)
    assert {len(one) for one in together} == {1} and len(together) == 600


def test_one_that_failed_keeps_nothing() -> None:
    apart = OneAtATime()
    with pytest.raises(ZeroDivisionError), apart.on({"a"}):
        raise ZeroDivisionError
    with apart.on({"a"}):
        pass

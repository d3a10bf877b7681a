"""What asks Buildbot for builds, where Buildbot came to an end with a build that did not begin its attempt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet import defer, task

from cleanroom_master.buildbot.scheduler import AttemptScheduler
from cleanroom_master.dispatch import DueAttempt

DUE = DueAttempt(7, 1, "hello", "https://example.org/hello.git", "v1", "a" * 40, "hello debian-12/deb")


class Scheduler(AttemptScheduler):
    """One that no master runs: `pending` are the buildsets that Buildbot has, `added` those that it was asked for."""

    def __init__(self) -> None:
        self._asked = {}
        self.builderNames = [DUE.builder]
        self.clock = task.Clock()
        self.pending: list[Any] = []
        self.added: list[str] = []
        self.nudged: list[str] = []

    @property
    def master(self) -> Any:
        data = SimpleNamespace(get=lambda *_, **__: defer.succeed(self.pending))
        botmaster = SimpleNamespace(maybeStartBuildsForBuilder=self.nudged.append)
        return SimpleNamespace(data=data, reactor=self.clock, botmaster=botmaster)

    def addBuildsetForSourceStamps(self, *, external_idstring: str, **_: Any) -> Any:  # noqa: N802 - Buildbot's name
        self.added.append(external_idstring)
        self.pending.append(external_idstring)
        return defer.succeed(None)

    def turn(self, *due: DueAttempt) -> int:
        """How often Buildbot was asked until the end of a turn."""
        self._ask(list(due)).addErrback(lambda failure: failure.raiseException())
        return len(self.added)


def test_buildbot_is_asked_once_while_it_has_the_build() -> None:
    scheduler = Scheduler()
    for _ in range(10):
        assert scheduler.turn(DUE) == 1
        scheduler.clock.advance(10)


def test_buildbot_looks_again_for_what_it_has_and_does_not_begin() -> None:
    """The database was away when it was to hear of a request that it had just written."""
    scheduler = Scheduler()
    scheduler.turn(DUE)
    assert scheduler.nudged == []
    scheduler.clock.advance(60)
    scheduler.turn(DUE)
    assert scheduler.nudged == [DUE.builder]


def test_what_is_still_due_is_asked_for_again_when_buildbot_is_done_with_it() -> None:
    """The disk was full when it was to begin, for example, and no turn since has seen it so."""
    scheduler = Scheduler()
    assert scheduler.turn(DUE) == 1
    scheduler.pending.clear()
    assert scheduler.turn(DUE) == 1
    scheduler.clock.advance(60)
    assert scheduler.turn(DUE) == 2


def test_a_clock_that_is_set_back_does_not_put_that_off() -> None:
    scheduler = Scheduler()
    scheduler.clock.advance(3600)
    assert scheduler.turn(DUE) == 1
    scheduler.pending.clear()
    scheduler.clock.rightNow -= 3600
    assert scheduler.turn(DUE) == 2

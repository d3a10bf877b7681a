"""A build in Buildbot whose own database is away when a step, or the build, ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.process import results
from buildbot.process.buildstep import create_step_from_step_or_factory
from twisted.internet import defer, task
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from cleanroom_master.buildbot import steps
from cleanroom_master.buildbot.steps import AttemptBuild, SendSource


def _away(*_: Any) -> defer.Deferred[Any]:
    return defer.fail(ConnectionError("the database is away"))


class Buildbot:
    """What a build knows of Buildbot: its own database is away until `there`, and `free` is what is free again."""

    def __init__(self) -> None:
        self.there = False
        self.free: list[object] = []
        self.clock = task.Clock()
        updates = SimpleNamespace(
            setBuildProperties=self._write, setBuildStateString=self._write, finishBuild=self._write
        )
        master = SimpleNamespace(data=SimpleNamespace(updates=updates), reactor=self.clock)
        self.builder = SimpleNamespace(
            master=master,
            config_version=0,
            config=None,
            building=[],
            name="hello",
            buildFinished=lambda build, _: self.builder.building.remove(build),
            botmaster=SimpleNamespace(maybeStartBuildsForBuilder=lambda _: None, maybeStartBuildsForAllBuilders=None),
        )

    def build(self) -> AttemptBuild:
        """A build that is on its way."""
        request = SimpleNamespace(mergeSourceStampsWith=lambda _: [], mergeReasons=lambda _: "")
        build = AttemptBuild([request], self.builder)
        build.conn, build.buildid = None, 7
        build.stopBuildConsumer = SimpleNamespace(stopConsuming=lambda: None)
        worker = SimpleNamespace(putInQuarantine=lambda: None, resetQuarantine=lambda: None)
        build.workerforbuilder = SimpleNamespace(worker=worker, buildFinished=lambda: self.free.append(worker))
        self.builder.building.append(build)
        return build

    def _write(self, *_: Any) -> defer.Deferred[Any]:
        return defer.succeed(None) if self.there else _away()


def break_at_a_step(build: AttemptBuild) -> list[object]:
    """Exactly what Buildbot calls, and does not wait for: an error of it would go nowhere."""
    found: list[object] = []
    build._start_next_step_impl(SimpleNamespace(startStep=_away)).addBoth(found.append)
    return found


def test_a_build_that_buildbot_cannot_end_is_known_to_be_broken() -> None:
    """Buildbot's own handling writes to its database, too: the build would neither go on nor end."""
    build = Buildbot().build()
    build._heartbeat = task.LoopingCall(lambda: None)
    found = break_at_a_step(build)
    assert found and not isinstance(found[0], Failure)
    assert build._broken
    assert not build.finished


def test_a_build_that_breaks_before_it_has_a_lease_gives_its_worker_back_once_that_can_be_written() -> None:
    buildbot = Buildbot()
    build = buildbot.build()
    found = break_at_a_step(build)
    for _ in range(10):
        buildbot.clock.advance(30)
    assert (buildbot.free, buildbot.builder.building, found) == ([], [build], [])
    buildbot.there = True
    buildbot.clock.advance(30)
    assert (len(buildbot.free), buildbot.builder.building, found) == (1, [], [None])


class Waiting:
    """A command that runs on a worker until somebody interrupts it."""

    def __init__(self) -> None:
        self.reasons: list[object] = []

    def interrupt(self, reason: object) -> defer.Deferred[None]:
        self.reasons.append(reason)
        return defer.succeed(None)


def test_a_command_whose_worker_is_lost_ends_although_that_cannot_be_written() -> None:
    """Buildbot writes a log that says so before it tells the command, which would wait for its worker for ever."""
    step = create_step_from_step_or_factory(SendSource(None, None))
    step.addCompleteLog = _away
    step.cmd = Waiting()
    lost = Failure(ConnectionLost())
    step.interrupt(lost)
    assert step.cmd.reasons == [lost]


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "there"])
def test_a_build_whose_step_does_not_notice_that_its_worker_is_lost_ends(
    lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Threads would go on after this test.
    monkeypatch.setattr(steps, "deferToThread", defer.maybeDeferred)
    buildbot = Buildbot()
    buildbot.there = True
    build = buildbot.build()
    build.conn = None if lost else object()
    build.dispatch = SimpleNamespace(renew=lambda _: True, finish=lambda _: None)
    build.job = SimpleNamespace(attempt=1)
    for _ in range(3):
        build._renew()
        buildbot.clock.advance(40)
    assert (build in buildbot.builder.building) is not lost


def test_a_heartbeat_goes_on_where_a_build_cannot_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "deferToThread", defer.maybeDeferred)
    build = Buildbot().build()
    build.dispatch = SimpleNamespace(renew=lambda _: False)
    build.job = SimpleNamespace(attempt=1)
    build.stopBuild = _away
    found: list[object] = []
    build._renew().addBoth(found.append)
    assert found == [None]


def test_an_end_that_cannot_be_written_is_written_later() -> None:
    buildbot = Buildbot()
    build = buildbot.build()
    ended: list[object] = []
    build.buildFinished(["build", "successful"], results.SUCCESS).addBoth(ended.append)
    assert (buildbot.free, ended) == ([], [])
    buildbot.there = True
    buildbot.clock.advance(2)
    assert (len(buildbot.free), ended) == (1, [None])

"""Turns recorded events into Buildbot's build requests.

NOTIFY wakes it and polling makes it right: each turn claims events, gives up what fell silent, and asks Buildbot
to build each due attempt. To ask twice does no harm (after a restart, for example): an attempt can be leased once.
What is still due a while after it was asked for is asked for again, if Buildbot has come to an end with it: the disk
was full, or the database away.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from buildbot.data.resultspec import Filter
from buildbot.process.properties import Properties
from buildbot.schedulers.base import ReconfigurableBaseScheduler
from twisted.internet import defer, reactor
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread
from twisted.python import log
from twisted.python.failure import Failure

from cleanroom_master.dispatch import Dispatch, DueAttempt

ATTEMPT = "attempt"
_AFTER_TROUBLE = 2.0
_TURN = 5.0
# Seconds until Buildbot is asked whether it still has what it was asked for.
_ASK_AGAIN = 30.0


class AttemptScheduler(ReconfigurableBaseScheduler):
    """Asks Buildbot for a build for every due attempt."""

    compare_attrs: ClassVar[tuple[str, ...]] = (*ReconfigurableBaseScheduler.compare_attrs,)

    def checkConfig(self, dispatch: Dispatch, **kwargs: Any) -> None:  # noqa: N802 - Buildbot's name
        """Buildbot's check of the arguments."""
        del dispatch
        super().checkConfig(**kwargs)

    @defer.inlineCallbacks
    def reconfigService(self, dispatch: Dispatch, **kwargs: Any) -> Any:  # noqa: N802 - Buildbot's name
        """Take a new list of builders; the loop goes on."""
        yield super().reconfigService(**kwargs)
        if not hasattr(self, "_dispatch"):
            self._dispatch = dispatch
            self._asked: dict[int, float] = {}
            self._active = False
            self._loop: defer.Deferred[None] = defer.succeed(None)
            self._keeping_house = False

    @defer.inlineCallbacks
    def activate(self) -> Any:
        """Begin; Buildbot calls this on the one master that runs this scheduler."""
        yield super().activate()
        if self.enabled and not self._active:
            self._active = True
            self._loop = self._run()

    @defer.inlineCallbacks
    def deactivate(self) -> Any:
        """End; waits for the turn that runs."""
        yield super().deactivate()
        self._active = False
        self._dispatch.wake()
        yield self._loop

    @defer.inlineCallbacks
    def _run(self) -> Any:
        pulse = self._dispatch.begin_pulse()
        reactor_turns = LoopingCall(
            lambda: pulse.turn("workers, and the loop of attempts", within=_TURN, loop="reactor")
        )
        reactor_turns.start(_TURN).addErrback(log.err)
        yield deferToThread(self._dispatch.take_over)
        while self._active:
            try:
                self._keep_house()
                closed = self._dispatch.closed_hosts
                due = yield deferToThread(self._dispatch.turn)
                for name in closed - self._dispatch.closed_hosts:
                    self.master.botmaster.maybeStartBuildsForWorker(name)
                yield self._ask(due)
                pulse.turn("what is recorded, or the next look", within=self._dispatch.pause, loop="attempts")
                yield deferToThread(self._dispatch.wait)
            except Exception:
                # Whatever happens to one turn (the database is away, say), the next one is tried.
                log.err(None, "a turn of the attempt scheduler failed")
                pulse.turn("a turn that succeeds", within=_AFTER_TROUBLE, loop="attempts")
                yield deferLater(reactor, _AFTER_TROUBLE, lambda: None)
        reactor_turns.stop()

    def _keep_house(self) -> None:
        """Begin that beside the turns; what goes wrong is told, and done again another time."""
        if self._keeping_house:
            return
        self._keeping_house = True

        def done(result: Any) -> None:
            self._keeping_house = False
            if isinstance(result, Failure):
                log.err(result, "housekeeping failed")
            for one in [] if isinstance(result, Failure) else result:
                log.msg(f"housekeeping: {one.number} {one.what} ({one.size or 0} bytes) removed: {one.why}")

        deferToThread(self._dispatch.keep_house).addBoth(done)

    @defer.inlineCallbacks
    def _ask(self, due: list[DueAttempt]) -> Any:
        # What is due no longer was leased or closed: it need not be remembered.
        now = self.master.reactor.seconds()
        self._asked = {one.id: self._asked[one.id] for one in due if one.id in self._asked}
        unknown = False
        for attempt in due:
            # A clock that was set back does not put it off.
            if abs(now - self._asked.get(attempt.id, -math.inf)) < _ASK_AGAIN:
                continue
            if attempt.builder not in self.builderNames:
                unknown = True
                continue
            yield self._ask_one(attempt)
            self._asked[attempt.id] = now
        if unknown:
            # A product or a target that is new: the configuration is read again, then the next turn asks.
            yield self.master.reconfig()
            self._dispatch.wake()

    @defer.inlineCallbacks
    def _ask_one(self, attempt: DueAttempt) -> Any:
        mark = f"{ATTEMPT} {attempt.id}"
        pending = yield self.master.data.get(
            ("buildsets",),
            filters=[Filter("external_idstring", "eq", [mark]), Filter("complete", "eq", [False])],
        )
        if pending:
            # If the database was away just then, Buildbot has the request and never heard of it.
            self.master.botmaster.maybeStartBuildsForBuilder(attempt.builder)
            return
        properties = Properties()
        properties.setProperty(ATTEMPT, attempt.id, "Scheduler")
        properties.setProperty("ref", attempt.ref, "Scheduler")
        yield self.addBuildsetForSourceStamps(
            sourcestamps=[
                {
                    "codebase": "",
                    "repository": attempt.url,
                    "branch": attempt.ref,
                    "revision": attempt.commit,
                    "project": attempt.product,
                }
            ],
            reason=f"{attempt.product} {attempt.ref}, attempt {attempt.number}",
            external_idstring=mark,
            properties=properties,
            builderNames=[attempt.builder],
        )

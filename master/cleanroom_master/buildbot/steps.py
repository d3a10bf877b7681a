"""The steps of a build in Buildbot: lease the attempt, send the source, run each phase, close the attempt.

What a phase does is told by events that the worker prints; they become rows, logs on disk and Buildbot's live
logs. A worker or a guest that is lost is never the product's failure: the attempt ends as `infrastructure`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from buildbot.process import remotecommand, remotetransfer, results
from buildbot.process.build import Build
from buildbot.process.buildstep import BuildStep
from twisted.internet import defer, reactor
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread
from twisted.python import log

from cleanroom_base.errors import InfrastructureError
from cleanroom_master.dispatch import Dispatch, Job, PhaseRun
from cleanroom_master.replaying import Replays
from cleanroom_recipes.events import Event, Output, StepStarted, decode
from cleanroom_recipes.model import Outcome

_BLOCK = 256 * 1024
_SOURCE = "source.tar"
# A worker gets 30 s to end its program; then a build that was told to stop is given up, in seconds.
_STOP_PATIENCE = 60.0
# Pause before the end of a build is written once more, in seconds; it doubles.
_END_PAUSE, _LONGEST_END_PAUSE = 2.0, 30.0
# Pause between two looks whether the disk has room again, in seconds.
_ROOM_PAUSE = 5.0
_RESULTS = {
    Outcome.PASSED: results.SUCCESS,
    Outcome.SKIPPED: results.SKIPPED,
    Outcome.FLAKY: results.WARNINGS,
    Outcome.CANCELLED: results.CANCELLED,
    Outcome.INFRASTRUCTURE: results.EXCEPTION,
}


class AttemptBuild(Build):
    """A build in Buildbot that closes its attempt however it ends."""

    job: Job | None = None
    _heartbeat: LoopingCall | None = None
    _asked_to_stop: float | None = None
    _lost_since: float | None = None
    _broken: bool = False

    def begin(self, dispatch: Dispatch, job: Job) -> None:
        """Keep the lease of `job` alive until the build ends."""
        self.dispatch = dispatch
        self.job = job
        self._heartbeat = LoopingCall(self._renew)
        self._heartbeat.start(dispatch.lease_seconds / 4, now=False).addErrback(log.err)

    @defer.inlineCallbacks
    def _start_next_step_impl(self, step: Any) -> Any:
        """Run a step; a build of which Buildbot cannot even write that it broke is ended by the heartbeat later.

        Before the attempt is leased there is no heartbeat, and nothing to wait for.
        """
        try:
            yield super()._start_next_step_impl(step)
        except Exception:
            log.err(None, "Buildbot's own database is away")
            self._broken = True
            if self._heartbeat is None:
                yield self.buildFinished(["interrupted"], results.EXCEPTION)

    @defer.inlineCallbacks
    def _renew(self) -> Any:
        assert self.job is not None
        try:
            kept = yield deferToThread(self.dispatch.renew, self.job)
        except Exception:
            log.err(None, "the lease could not be renewed; trying again")
            return
        if kept:
            if self._broken or self._long_without_worker():
                yield self.buildFinished(["interrupted"], results.EXCEPTION)
            return
        log.msg(f"attempt {self.job.attempt} was taken away or cancelled")
        now = self.master.reactor.seconds()
        if self._asked_to_stop is None:
            self._asked_to_stop = now
        elif now - self._asked_to_stop > _STOP_PATIENCE:
            # A step that fails while Buildbot's own database is away never ends, and would keep its builder.
            yield self.buildFinished(["given up"], results.EXCEPTION)
            return
        try:
            yield self.stopBuild("the attempt was taken away or cancelled", results.CANCELLED)
        except Exception:
            log.err(None, "the build could not be stopped; trying again")

    def _long_without_worker(self) -> bool:
        """Whether the worker is lost, and the step that ran there has not noticed for a while."""
        if self.conn is not None:
            return False
        now = self.master.reactor.seconds()
        if self._lost_since is None:
            self._lost_since = now
        return bool(now - self._lost_since > _STOP_PATIENCE)

    @defer.inlineCallbacks
    def buildFinished(self, text: Any, result: Any) -> Any:  # noqa: N802 - Buildbot's name
        """Close the attempt with what its phases say, then let Buildbot finish."""
        if self.finished:
            return
        if self._heartbeat is not None and self._heartbeat.running:
            self._heartbeat.stop()
        job, self.job = self.job, None
        if job is not None:
            try:
                yield deferToThread(self.dispatch.finish, job)
            except Exception:
                # The lease runs out and the attempt is tried again.
                log.err(None, f"attempt {job.attempt} could not be closed")
        yield super().buildFinished(text, result)
        # Buildbot tells nobody that it could not write the end, and keeps the worker for this build.
        pause = _END_PAUSE
        while self in self.builder.building:
            yield deferLater(self.master.reactor, pause, lambda: None)
            pause = min(2 * pause, _LONGEST_END_PAUSE)
            yield super().buildFinished(text, result)


class LeaseAttempt(BuildStep):
    """Take the attempt; from then on this build alone may write its rows."""

    name = "lease"

    def __init__(self, dispatch: Dispatch, **kwargs: Any) -> None:
        super().__init__(hideStepIf=lambda result, _: result == results.SUCCESS, **kwargs)
        self.dispatch = dispatch

    @defer.inlineCallbacks
    def run(self) -> Any:
        """Lease, and add the steps of the attempt's phases."""
        if self.worker.workername in (yield deferToThread(self.dispatch.look_at_hosts)):
            # It was drained a moment ago: Buildbot asks again, once a host takes work.
            self.descriptionDone = "the host takes no work"
            return results.RETRY
        owner = f"{self.dispatch.name}/{self.build.buildid}"
        url = f"{self.master.config.buildbotURL}#/builders/{self.build.builder._builderid}/builds/{self.build.number}"
        job = yield deferToThread(self.dispatch.lease, self.getProperty("attempt"), owner, self.worker.workername, url)
        if job is None:
            self.descriptionDone = "another build has this attempt, it is closed, or the disk has no room"
            return results.SKIPPED
        self.build.begin(self.dispatch, job)
        self.setProperty("product", job.product, "Cleanroom")
        self.setProperty("target", job.target, "Cleanroom")
        self.build.addStepsAfterCurrentStep(
            [SendSource(self.dispatch, job), *(RunPhase(self.dispatch, job, phase) for phase in job.phases)]
        )
        return results.SUCCESS


class _Transfer(BuildStep):
    """A step that moves files between master and worker."""

    def __init__(self, dispatch: Dispatch, job: Job, **kwargs: Any) -> None:
        super().__init__(haltOnFailure=True, **kwargs)
        self.dispatch = dispatch
        self.job = job

    @defer.inlineCallbacks
    def interrupt(self, reason: Any) -> Any:
        """Stop; the command stops also where Buildbot cannot write that down, because its own database is away."""
        try:
            yield super().interrupt(reason)
        except Exception:
            # Buildbot has logged it.
            if self.cmd is not None:
                yield self.cmd.interrupt(reason)

    @defer.inlineCallbacks
    def command(self, remote: Any) -> Any:
        """Run one remote command; True when it succeeded."""
        yield self.runCommand(remote)
        return not remote.didFail()

    def transfer(self, name: str, **arguments: Any) -> Any:
        """A remote command that transfers; its log goes nowhere."""
        command = remotecommand.RemoteCommand(
            name, {"workdir": "build", "blocksize": _BLOCK, "maxsize": None, **arguments}, stdioLogName=None
        )
        return self.command(command)

    def send_file(self, source: Path, destination: str) -> Any:
        """Copy one file of the master's to the worker."""
        reader = remotetransfer.FileReader(source.open("rb"))
        return self.transfer("downloadFile", workerdest=destination, reader=reader, mode=0o600)

    def send_text(self, text: str, destination: str) -> Any:
        """Write a small file on the worker."""
        reader = remotetransfer.StringFileReader(text)
        return self.transfer("downloadFile", workerdest=destination, reader=reader, mode=0o600)

    def remove_directory(self, path: str) -> Any:
        """Remove a directory on the worker with all that is in it; it need not be there."""
        return self.command(remotecommand.RemoteCommand("rmdir", {"dir": path, "logEnviron": False}, stdioLogName=None))

    def make_directory(self, path: str) -> Any:
        """Make a directory on the worker."""
        return self.command(remotecommand.RemoteCommand("mkdir", {"dir": path, "logEnviron": False}, stdioLogName=None))

    @defer.inlineCallbacks
    def spoiled(self, why: str) -> Any:
        """The surroundings failed; say so in the rows and end the build."""
        self.descriptionDone = why[:100]
        yield deferToThread(self.dispatch.spoil, self.job, why)
        return results.EXCEPTION


class SendSource(_Transfer):
    """Send the worker an archive of exactly the recorded commit."""

    name = "source"

    @defer.inlineCallbacks
    def run(self) -> Any:
        """Make the archive, empty the work directory, send."""
        try:
            archive = yield deferToThread(self.dispatch.source, self.job)
        except Exception as error:
            return (yield self.spoiled(f"the source could not be archived: {error}"))
        # Here alone, so that each phase finds what the earlier ones left, and nothing of an earlier attempt.
        yield self.remove_directory("build")
        yield self.make_directory("build")
        sent = yield self.send_file(archive, _SOURCE)
        yield deferToThread(archive.unlink)
        if not sent:
            return (yield self.spoiled("the source could not be sent to the worker"))
        return results.SUCCESS


class _EventCommand(remotecommand.RemoteShellCommand):
    """Runs a command whose standard output is for us and whose standard error is for Buildbot's log."""

    def __init__(self, on_output: Callable[[str], None], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._on_output = on_output

    def add_stdout_lines(self, data: str, _is_flushed: bool) -> Any:
        """Buildbot calls this with whole lines."""
        self._on_output(data)
        return defer.succeed(None)


class RunPhase(_Transfer):
    """Run one phase in a clean guest on the worker."""

    def __init__(self, dispatch: Dispatch, job: Job, phase: str, **kwargs: Any) -> None:
        super().__init__(dispatch, job, name=phase, flunkOnFailure=True, **kwargs)
        self.haltOnFailure = phase == "build"
        self.phase = phase
        self._logs: dict[str, Any] = {}
        self._rest = ""
        # Events are handled one after the other, in the order in which they came.
        self._order = defer.DeferredLock()
        self._broken: str | None = None

    @defer.inlineCallbacks
    def run(self) -> Any:
        """Prepare, run, record, and bring artifacts home."""
        if not (yield self._room()):
            return results.CANCELLED
        try:
            phase: PhaseRun = yield deferToThread(self.dispatch.begin_phase, self.job, self.phase)
        except InfrastructureError as error:
            self.haltOnFailure = True
            return (yield self.spoiled(f"{self.phase}: {error}"))
        outcome = yield self._guarded(phase)
        if outcome is Outcome.FAILED:
            outcome = yield self._replayed(phase)
        self.descriptionDone = f"{self.phase}: {outcome.value}"
        if outcome is Outcome.INFRASTRUCTURE:
            # Nothing that follows would be worth its time.
            self.haltOnFailure = True
        return _RESULTS.get(outcome, results.FAILURE)

    @defer.inlineCallbacks
    def _room(self) -> Any:
        """Wait until the disk has room for a guest; False where the build was stopped meanwhile."""
        while not self.stopped and (yield deferToThread(lambda: self.dispatch.low)):
            yield deferLater(reactor, _ROOM_PAUSE, lambda: None)
        return not self.stopped

    @defer.inlineCallbacks
    def _guarded(self, phase: PhaseRun) -> Any:
        """Run a phase or a replay of it; that something broke here is never the product's fault."""
        self._rest, self._broken, self._logs = "", None, {}
        try:
            outcome = yield self._run(phase)
        except Exception as error:
            log.err(None, f"phase {phase.label} broke")
            outcome = yield deferToThread(phase.lost, f"{type(error).__name__}: {error}")
        for stream in self._logs.values():
            yield stream.finish()
        return outcome

    @defer.inlineCallbacks
    def _replayed(self, phase: PhaseRun) -> Any:
        """Run a phase that failed by its tests again, as often as it takes to know whether it always fails."""
        replays = Replays(self.dispatch, phase)
        if not replays.wanted:
            return Outcome.FAILED
        while (run := (yield deferToThread(replays.following))) is not None:
            yield self._guarded(run)
            if self.stopped:
                # The attempt was taken away: whoever did that writes its end.
                return Outcome.CANCELLED
        return (yield deferToThread(replays.close))

    @property
    def _directory(self) -> Path:
        """The build's work directory on the worker."""
        return Path(self.worker.worker_basedir, self.build.builder.config.workerbuilddir, "build")

    @defer.inlineCallbacks
    def _run(self, phase: PhaseRun) -> Any:
        if phase.needless is not None:
            return (yield deferToThread(phase.skip, phase.needless))
        for directory in phase.directories:
            yield self.make_directory(f"build/{directory}")
        for source, destination in phase.downloads:
            if not (yield self.send_file(source, destination)):
                return (yield deferToThread(phase.lost, f"{destination} could not be sent to the worker"))
        # The worker's own log, which tells of commands only, is found by it, too.
        request = f"request.{phase.label}.{self.job.correlation}.json"
        yield self.send_text(json.dumps(phase.request(self._directory, self.worker.protocol)), request)
        command = _EventCommand(
            self._received,
            workdir="build",
            command=["cleanroom-worker", "run-phase", request],
            # The worker watches its own limits; this one only catches a worker that hangs.
            timeout=None,
            maxTime=phase.longest,
            sigtermTime=30,
            logEnviron=False,
            stdioLogName="stdio",
        )
        stdio = yield self.addLog(self._log_name(phase, "stdio"))
        command.useLog(stdio, True, "stdio")
        self._phase = phase
        yield self.command(command)
        yield self._order.run(lambda: None)
        if self._broken is not None:
            return (yield deferToThread(phase.lost, self._broken))
        if phase.artifacts:
            outcome = yield self._bring_home(phase)
            if outcome is not None:
                return outcome
        return (yield deferToThread(phase.close))

    def _log_name(self, phase: PhaseRun, name: str) -> str:
        """What a log is called in Buildbot's pages."""
        return name if phase.label == self.phase else f"{phase.label} {name}"

    @defer.inlineCallbacks
    def _bring_home(self, phase: PhaseRun) -> Any:
        incoming = phase.incoming
        yield deferToThread(partial(incoming.mkdir, parents=True, exist_ok=True))
        try:
            writer = remotetransfer.DirectoryWriter(str(incoming), self.job.artifact_limit, None, 0o600)
            sent = yield self.transfer(
                "uploadDirectory",
                workersrc=phase.output,
                writer=writer,
                compress=None,
                maxsize=self.job.artifact_limit,
            )
            if not sent:
                return (yield deferToThread(phase.lost, "the artifacts could not be brought from the worker"))
            return (yield deferToThread(phase.take_artifacts))
        finally:
            yield deferToThread(shutil.rmtree, incoming, True)

    def _received(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        events: list[Event] = []
        for line in lines:
            if not line or self._broken is not None:
                continue
            try:
                events.append(decode(line.encode()))
            except Exception as error:
                self._broken = f"the worker said what is no event: {error}"
        if events:
            self._order.run(self._handle, events).addErrback(self._broke)

    @defer.inlineCallbacks
    def _handle(self, events: list[Event]) -> Any:
        yield deferToThread(self._phase.record, events)
        for event in events:
            if isinstance(event, StepStarted):
                self._logs[event.step] = yield self.addLog(self._log_name(self._phase, event.step))
            elif isinstance(event, Output) and event.step in self._logs:
                self._logs[event.step].addStdout(event.text)

    def _broke(self, failure: Any) -> None:
        log.err(failure, "events could not be recorded")
        self._broken = self._broken or f"events could not be recorded: {failure.getErrorMessage()}"

"""Runs one phase: a clean guest, the inputs in, the steps in their order, the artifacts out, the guest gone.

Everything is told as events. The one question that this module answers for each thing that can go wrong is
whose fault it is: the product's (`failed`) or the surroundings' (`infrastructure`), and why, in one sentence.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Protocol

from cleanroom_base.errors import CleanroomError, InfrastructureError, InputError, Problem, ProductError
from cleanroom_base.run import CommandTimedOut, Completed, Output, OutputLimitExceeded
from cleanroom_recipes import events, names
from cleanroom_recipes.events import MESSAGE_LIMIT, WHY_LIMIT, TestCase
from cleanroom_recipes.model import (
    Blame,
    Builder,
    GuestNetwork,
    Input,
    Isolation,
    Network,
    Outcome,
    RefKind,
    Report,
    User,
)
from cleanroom_recipes.plan import StepPlan
from cleanroom_recipes.request import PhaseRequest
from cleanroom_workers import artifacts, declarations, failure_reason, installed, package_sources, room, variation
from cleanroom_workers.guest import GuestWentOff, plain_environment
from cleanroom_workers.results.autopkgtest import Autopkgtest
from cleanroom_workers.results.log import LogReport
from cleanroom_workers.results.step import PhaseResults, StepResults
from cleanroom_workers.step_output import StepOutput

Emit = Callable[[events.Event], None]

SKIPPED_STATUS = 77

_HOME = "/cleanroom"
# Known to the steps that make package sources of it.
_CANDIDATES = f"{_HOME}/candidates"
_SEND_TIMEOUT = 600.0
# Every package that dpkg or rpm has, whichever of them is there.
_LIST_PACKAGES = r"""
dpkg-query --show --showformat='${Package}:${Architecture} ${Version} ${db:Status-Status}\n' 2>/dev/null
rpm --query --all --queryformat '%{NAME}.%{ARCH} %{EPOCH}:%{VERSION}-%{RELEASE}\n' 2>/dev/null
true
"""
_LIST_TIMEOUT = 120.0
_LIST_LIMIT = 16 << 20
_CLOCK_TIMEOUT = 60.0

_PATHS = {
    "CLEANROOM_SOURCE": f"{_HOME}/source.tar",
    "CLEANROOM_ARTIFACTS": f"{_HOME}/artifacts",
    "CLEANROOM_PREVIOUS": f"{_HOME}/previous",
    "CLEANROOM_OUTPUT": f"{_HOME}/output",
    "CLEANROOM_RESULTS": f"{_HOME}/results",
    "CLEANROOM_TREE": f"{_HOME}/build/tree",
}


class Guest(Protocol):
    """What a phase needs of a guest; cleanroom_workers.guest has the real one."""

    @property
    def name(self) -> str: ...
    @property
    def image(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def isolation(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def network(self) -> str: ...
    @property
    def reset_seconds(self) -> float: ...

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        output: Output | None = None,
        stdin: bytes | IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        user: str = "root",
        directory: str | None = None,
        output_limit: int | None = None,
    ) -> Completed:
        """Run a command, whatever its exit status."""

    def copy_out(self, source: str, destination: Path, *, limit: int) -> list[Path]:
        """Bring the regular files of a directory out, at most `limit` bytes."""

    def damaged(self) -> bool:
        """Whether its disk lost something because the host's was full."""

    def dismiss(self) -> None:
        """End the guest; what is left of it may be taken away later."""


class Cancelled(BaseException):
    """Somebody asked this process to end. Not an Exception: nothing but the phase itself may catch it."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a phase has around it: how to get a guest, how many bytes a step may print and a phase may make.

    `shield` is called when the guest is about to be destroyed: from then on nothing may interrupt.
    `repository` says where guests find the published repository, as `http://ADDRESS:PORT`.
    """

    reset: Callable[[PhaseRequest], Guest]
    log_limit: int
    artifact_limit: int
    shield: Callable[[], None] = lambda: None
    repository: Callable[[], str] = lambda: ""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """How a step or phase ended.

    `final`: the phase cannot go on, whether or not the step was required. `guest_went_off`: by whom is not known.
    """

    outcome: Outcome
    why: str | None = None
    exit_status: int | None = None
    final: bool = False
    guest_went_off: bool = False


_PASSED = _Verdict(Outcome.PASSED)


def run_phase(request: PhaseRequest, surroundings: Surroundings, emit: Emit) -> Outcome:
    """Run a phase to its end and tell it by events; the last one is always PhaseFinished.

    Raises InputError before the first event where an input is not there, and what `emit` raises.
    """
    _must_have_inputs(request)
    return _Phase(request, surroundings, emit).run()


def _must_have_inputs(request: PhaseRequest) -> None:
    problems = []
    for wanted in request.phase.inputs:
        path = request.path(wanted)
        if path is None and wanted is Input.PREVIOUS:
            continue
        if path is None or not (path.is_file() if wanted is Input.SOURCE else path.is_dir()):
            problems.append(Problem(wanted, f"the phase {request.phase.name} needs it, and it is not there"))
    if not request.output.is_dir() or any(request.output.iterdir()):
        problems.append(Problem("output", "must be an empty directory"))
    if problems:
        raise InputError("the request is not valid", problems=problems)


class _Phase:
    def __init__(self, request: PhaseRequest, surroundings: Surroundings, emit: Emit) -> None:
        self._request = request
        self._plan = request.phase
        self._surroundings = surroundings
        self._emit = emit
        self._started = time.monotonic()
        self._deadline = self._started + self._plan.timeout
        self._command_seconds = 0.0
        self._results = PhaseResults(_HOME)

    def run(self) -> Outcome:
        self._emit(events.PhaseStarted(events.now(), self._plan.name, self._request.correlation))
        try:
            verdict = self._judge()
        except Cancelled as error:
            verdict = _Verdict(Outcome.CANCELLED, str(error) or "the phase was cancelled")
        seconds = time.monotonic() - self._started
        why = verdict.why[:WHY_LIMIT] if verdict.why else None
        self._emit(
            events.PhaseFinished(
                events.now(), verdict.outcome, why, seconds, self._command_seconds, verdict.guest_went_off
            )
        )
        return verdict.outcome

    def _judge(self) -> _Verdict:
        """Run the phase and say whose fault it is if it does not pass."""
        try:
            missing = self._unmet_condition()
            return _Verdict(Outcome.SKIPPED, missing) if missing else self._in_guest()
        except ProductError as error:
            return _Verdict(Outcome.FAILED, error.message)
        except CleanroomError as error:
            # All problems and what to do about them, in one line.
            why = "; ".join(map(str.strip, str(error).splitlines()))
            return _Verdict(Outcome.INFRASTRUCTURE, why, guest_went_off=isinstance(error, GuestWentOff))
        except OSError as error:
            return _Verdict(Outcome.INFRASTRUCTURE, f"the host failed: {error}")

    def _unmet_condition(self) -> str | None:
        """Why there is nothing to do in this phase, if so."""
        condition = self._plan.condition
        if condition is None:
            return None
        if condition.previous and self._request.previous and any(self._request.previous.iterdir()):
            return None
        source = self._request.source
        if condition.source and source and _has_any(source, condition.source):
            return None
        if condition.suites and source and declarations.suites(source, condition.suites):
            return None
        return condition.why_not

    def _in_guest(self) -> _Verdict:
        guest = self._surroundings.reset(self._request)
        try:
            self._emit(_reset_event(guest))
            try:
                verdict = self._work(guest)
            except (ProductError, OutputLimitExceeded) as error:
                verdict = _Verdict(Outcome.FAILED, error.message)
            return self._unless_disk_is_full(verdict, guest)
        finally:
            self._surroundings.shield()
            guest.dismiss()

    def _work(self, guest: Guest) -> _Verdict:
        self._send_inputs(guest)
        if self._varied:
            self._vary(guest)
        verdict = self._steps(guest)
        if not verdict.final:
            self._tell_packages(guest)
        if verdict.outcome is Outcome.PASSED and self._plan.makes_artifacts:
            self._collect(guest)
        return verdict

    @property
    def _varied(self) -> bool:
        """Whether it is a build in other circumstances."""
        return self._request.conditions.varied and self._plan.makes_artifacts

    def _vary(self, guest: Guest) -> None:
        environment = plain_environment("root")
        done = guest.run(["sh", "-c", variation.PROGRAM], timeout=_LIST_TIMEOUT, environment=environment)
        if done.exit_status != 0:
            end = done.stderr[-500:].decode(errors="replace").strip()
            raise InfrastructureError(f"the circumstances of the build in {guest.name} could not be varied: {end}")

    @contextlib.contextmanager
    def _other_date(self, guest: Guest, step: StepPlan) -> Iterator[None]:
        """Have the guest's clock be another one while the product's code runs: apt and TLS need the right one."""
        if not (self._varied and step.user is User.BUILDER and variation.has_clock(guest.isolation)):
            yield
            return
        environment = plain_environment("root")
        command = variation.clock(events.now(), ahead=True)
        done = guest.run(command, timeout=_CLOCK_TIMEOUT, environment=environment)
        if done.exit_status != 0:
            raise InfrastructureError(f"the clock of {guest.name} cannot be set")
        try:
            yield
        finally:
            # Where the guest is gone the step has said so.
            with contextlib.suppress(CleanroomError):
                command = variation.clock(events.now(), ahead=False)
                guest.run(command, timeout=_CLOCK_TIMEOUT, environment=environment)

    # -- what goes in ------------------------------------------------------------------------------------

    def _send_inputs(self, guest: Guest) -> None:
        """Send the steps and inputs as one tar, because each way into a guest takes its time."""
        with tempfile.TemporaryFile() as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
                self._pack(tar)
            stream.seek(0)
            command = ["tar", "--extract", "--no-same-owner", "--directory=/", "--file=-"]
            completed = guest.run(command, timeout=_SEND_TIMEOUT, stdin=stream)
        if completed.exit_status != 0:
            end = completed.stderr[-500:].decode(errors="replace").strip()
            raise InfrastructureError(f"cannot send the inputs into the guest {guest.name}: {end}")

    def _pack(self, tar: tarfile.TarFile) -> None:
        for directory in ("", "/steps", "/artifacts", "/previous", "/output", "/results", "/build"):
            member = tarfile.TarInfo(f"{_HOME}{directory}"[1:])
            member.type, member.mtime = tarfile.DIRTYPE, int(time.time())
            # Whoever runs a step may leave results.
            member.mode = 0o1777 if directory == "/results" else 0o755
            tar.addfile(member)
        for position, step in enumerate(self._plan.steps):
            content = step.program.encode()
            member = tarfile.TarInfo(_program(position)[1:])
            member.size, member.mode, member.mtime = len(content), 0o755, int(time.time())
            tar.addfile(member, io.BytesIO(content))
        for name, text in self._package_sources().items():
            member = tarfile.TarInfo(name[1:])
            member.size, member.mode, member.mtime = len(text.encode()), 0o644, int(time.time())
            tar.addfile(member, io.BytesIO(text.encode()))
        for file in sorted(self._request.candidates.iterdir()) if self._request.candidates else ():
            tar.add(file.resolve(), arcname=f"{_CANDIDATES}/{file.name}"[1:], recursive=False, filter=_as_root)
        for wanted in self._plan.inputs:
            path = self._request.path(wanted)
            if path is None:
                continue
            name = f"{_HOME}/source.tar" if wanted is Input.SOURCE else f"{_HOME}/{wanted}"
            for file in [path] if path.is_file() else sorted(path.iterdir()):
                inside = name if path.is_file() else f"{name}/{file.name}"
                tar.add(file.resolve(), arcname=inside[1:], recursive=False, filter=_as_root)

    def _package_sources(self) -> dict[str, str]:
        """The files that make the published channel a package source of the guest; none where it is not to be."""
        published = self._request.repository
        if published is None or self._plan.network is Network.NONE:
            return {}
        return package_sources.published(published, self._plan.image, self._surroundings.repository())

    def _environment(self, step: StepPlan) -> dict[str, str]:
        request = self._request
        environment = {
            **_PATHS,
            **plain_environment(step.user.value),
            "CLEANROOM_PRODUCT": request.product,
            "CLEANROOM_REF": request.ref,
            "CLEANROOM_COMMIT": request.commit,
            "CLEANROOM_COMMIT_TIME": str(int(request.commit_time.timestamp())),
            "CLEANROOM_EXPECTED_VERSION": request.expected_version or "",
            "CLEANROOM_SNAPSHOT": request.snapshot_suffix,
        }
        if self._plan.format is not Builder.DEB:
            # dpkg-buildpackage takes the time of debian/changelog; the others have none but the commit's.
            environment["SOURCE_DATE_EPOCH"] = environment["CLEANROOM_COMMIT_TIME"]
        varied = variation.environment(step.user, events.now()) if self._varied else {}
        return {**environment, **varied, **step.environment}

    # -- the steps ---------------------------------------------------------------------------------------

    def _steps(self, guest: Guest) -> _Verdict:
        """Run the steps; the first required one that does not pass ends the phase."""
        tests: list[_Verdict] = []
        first_test = next((step for step in self._plan.steps if step.tests is not Report.NONE), None)
        for position, step in enumerate(self._plan.steps):
            if step is first_test and (other := self._other_state(guest)):
                return other
            verdict = self._step(guest, step, position)
            skips = verdict.outcome is Outcome.SKIPPED
            if verdict.final or (skips and step.skips_phase):
                return verdict
            if step.required and not skips and verdict.outcome is not Outcome.PASSED:
                return verdict
            if step.tests not in (Report.NONE, Report.FILES):
                tests.append(verdict)
        if tests and all(verdict.outcome is Outcome.SKIPPED for verdict in tests):
            return tests[0]
        return _PASSED

    def _other_state(self, guest: Guest) -> _Verdict | None:
        """Tell what is installed before the tests; a verdict where a replay must not run them, because it differs."""
        command = ["sh", "-c", _LIST_PACKAGES]
        environment = plain_environment("root")
        digest = None
        # What was installed may do what it likes to these programs; that alone fails no phase.
        with contextlib.suppress(CommandTimedOut, OutputLimitExceeded):
            listed = guest.run(command, timeout=_LIST_TIMEOUT, environment=environment, output_limit=_LIST_LIMIT)
            packages = sorted(listed.stdout.splitlines())
            digest = hashlib.sha256(b"\n".join(packages)).hexdigest()
            self._emit(events.StartingState(events.now(), digest, len(packages)))
        if self._request.installed in (None, digest):
            return None
        why = "another state: not the packages are installed that were when the phase first ran"
        return _Verdict(Outcome.INFRASTRUCTURE, why, final=True)

    def _step(self, guest: Guest, step: StepPlan, position: int) -> _Verdict:
        self._emit(events.StepStarted(events.now(), step.name, position))
        log = _log_report(step)
        output = StepOutput(step.name, self._emit, on_line=log.take if log else None)
        started = time.monotonic()
        truncated = False
        try:
            verdict = self._run_step(guest, step, position, output)
        except OutputLimitExceeded:
            limit = self._surroundings.log_limit
            truncated = True
            verdict = _Verdict(Outcome.FAILED, f"step {step.name} printed more than {limit} bytes and was ended")
        finally:
            output.close()
            seconds = time.monotonic() - started
            self._command_seconds += seconds
        verdict = self._unless_disk_is_full(verdict, guest)
        results = self._tests(guest, step, verdict, log, seconds)
        for event in events.in_events(events.now(), step.name, results.cases):
            self._emit(event)
        self._emit(
            events.StepFinished(
                events.now(),
                step.name,
                verdict.outcome,
                verdict.exit_status,
                seconds,
                verdict.why[:WHY_LIMIT] if verdict.why else None,
                output.size,
                truncated,
                results.remark or None,
            )
        )
        return verdict

    def _run_step(self, guest: Guest, step: StepPlan, position: int, output: StepOutput) -> _Verdict:
        """Run a step's program and judge it. Raises OutputLimitExceeded."""
        left = self._deadline - time.monotonic()
        timeout = max(min(step.timeout, left), 0.0)
        try:
            with self._other_date(guest, step):
                completed = guest.run(
                    variation.command(step.user, _program(position)) if self._varied else ["sh", _program(position)],
                    timeout=timeout,
                    output=output.feed,
                    environment=self._environment(step),
                    user=step.user.value,
                    directory=_HOME,
                    output_limit=self._surroundings.log_limit,
                )
        except CommandTimedOut:
            late = timeout < step.timeout
            what, limit = ("the phase", self._plan.timeout) if late else (f"step {step.name}", step.timeout)
            outcome = Outcome.INFRASTRUCTURE if step.blame is Blame.INFRASTRUCTURE else Outcome.FAILED
            return _Verdict(outcome, f"{what} did not end in {limit:g} seconds", final=late)
        except OutputLimitExceeded:
            raise
        except ProductError as error:
            return _Verdict(Outcome.FAILED, f"{error.message} during step {step.name}", final=True)
        except GuestWentOff as error:
            why = f"{error.message}, during step {step.name}"
            return _Verdict(Outcome.INFRASTRUCTURE, why, final=True, guest_went_off=True)
        except InfrastructureError as error:
            return _Verdict(Outcome.INFRASTRUCTURE, error.message, final=True)
        return _judged(step, completed.exit_status, output)

    def _unless_disk_is_full(self, verdict: _Verdict, guest: Guest) -> _Verdict:
        """The same verdict, but not against the product, nor for it, where the host had no disk left for its guest."""
        damaged = guest.damaged()
        if verdict.outcome in (Outcome.INFRASTRUCTURE, Outcome.CANCELLED):
            # A guest that lost something may go off for that.
            return replace(verdict, guest_went_off=verdict.guest_went_off and not damaged)
        because = f" ({verdict.why})" if verdict.why else ""
        if damaged:
            why = f"the guest's disk lost something, because the host's was full{because}"
        elif verdict.outcome is Outcome.FAILED and room.exhausted(self._request.output):
            why = f"the host's disk is full{because}"
        else:
            return verdict
        return _Verdict(Outcome.INFRASTRUCTURE, why, final=True)

    # -- what comes out ----------------------------------------------------------------------------------

    def _tests(
        self, guest: Guest, step: StepPlan, verdict: _Verdict, log: LogReport | None, seconds: float
    ) -> StepResults:
        """What the step says of its tests. The verdict stands, whatever that is."""
        own = None
        if step.tests is Report.COMMAND:
            own = TestCase(step.name, verdict.outcome, seconds, verdict.why and verdict.why[:MESSAGE_LIMIT])
        # After a final verdict there is no guest any more, or no time.
        asked = step.tests is not Report.NONE and not verdict.final
        return self._results.of(guest if asked else None, step.results, log, own)

    def _tell_packages(self, guest: Guest) -> None:
        """Say what is installed, as far as the guest still says it; the verdict stays as it is."""
        found = installed.packages(guest, rpm=self._plan.format is Builder.RPM)
        if found:
            self._emit(events.Installed(events.now(), found))

    def _collect(self, guest: Guest) -> None:
        """Bring the artifacts out, look at them, and only then put them into the output directory."""
        output = self._request.output
        with tempfile.TemporaryDirectory(dir=output, prefix=".incoming-") as directory:
            incoming = Path(directory)
            place = _PATHS["CLEANROOM_OUTPUT"]
            files = guest.copy_out(place, incoming, limit=self._surroundings.artifact_limit)
            for file in files:
                if file.parent != incoming:
                    raise artifacts.BadArtifact(f"an artifact lies in a directory: {file.relative_to(incoming)}")
            collection = artifacts.check(files, self._plan.format)
            version = self._checked_version(collection)
            for checked in collection.files:
                checked.path.rename(output / checked.path.name)
        if version is not None:
            self._emit(events.Version(events.now(), version))
        for checked in collection.files:
            self._emit(_artifact_event(checked))

    def _checked_version(self, collection: artifacts.Collection) -> str | None:
        """The packages' version. Raises BadArtifact where it is not the one that the ref promised."""
        request, found = self._request, collection.version
        if found is None:
            return request.expected_version or (f"0{request.snapshot_suffix}" if request.snapshot_suffix else None)
        if request.kind is RefKind.COMMIT and request.snapshot_suffix not in found:
            raise artifacts.BadArtifact(f"the packages' version {found} does not name the commit")
        expected = request.expected_version
        if request.kind is RefKind.TAG and expected and not names.version_agrees(expected, found):
            raise artifacts.BadArtifact(f"tag {request.ref} says {expected}, the packages say {found}")
        return found


def _log_report(step: StepPlan) -> LogReport | None:
    """What looks for tests among what a step prints."""
    if step.tests is Report.AUTOPKGTEST:
        return LogReport((Autopkgtest,))
    return LogReport() if step.tests in (Report.LOG, Report.COMMAND) else None


def _judged(step: StepPlan, status: int, output: StepOutput) -> _Verdict:
    """A step's verdict by its exit status and the end of its output."""
    if status == 0:
        return _Verdict(Outcome.PASSED, exit_status=0)
    if status == SKIPPED_STATUS:
        return _Verdict(Outcome.SKIPPED, failure_reason.skip_reason(output.tail), status)
    why = failure_reason.why(output.tail, status=status, step=step.name)
    blameless = step.blame is Blame.INFRASTRUCTURE or (
        step.blame is Blame.APT and failure_reason.source_is_away(output.tail, status)
    )
    if blameless:
        return _Verdict(Outcome.INFRASTRUCTURE, why, status, final=True)
    return _Verdict(Outcome.FAILED, why, status)


def _program(position: int) -> str:
    return f"{_HOME}/steps/{position}"


def _has_any(source: Path, wanted: Sequence[str]) -> bool:
    """Whether the source's tar has one of the files."""
    with tarfile.open(source) as tar:
        return any(member.name.removeprefix("./") in wanted for member in tar)


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _reset_event(guest: Guest) -> events.Reset:
    return events.Reset(
        events.now(),
        guest.name,
        guest.image,
        guest.digest,
        Isolation(guest.isolation),
        guest.method,
        GuestNetwork(guest.network),
        guest.reset_seconds,
    )


def _artifact_event(checked: artifacts.Checked) -> events.Artifact:
    return events.Artifact(
        events.now(),
        checked.path.name,
        checked.size,
        checked.sha256,
        checked.format,
        checked.package,
        checked.version,
        checked.architecture,
    )

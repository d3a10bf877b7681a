"""The one module that runs subprocesses.

One place, so that every program gets an argument list (never a shell string), a time limit, a process group
that is ended as a whole, and an error that says which command failed and shows the end of what it printed.
Programs are taken from PATH: a test puts a fake one in front.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cleanroom_base import parent
from cleanroom_base.errors import InfrastructureError, TimedOut

Output = Callable[[bytes], None]
Process = subprocess.Popen[bytes]

TAIL = 4096
CAPTURE_LIMIT = 64 * 1024 * 1024
LOG_LIMIT = 16 * 1024 * 1024
_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished command: its exit status (negative: the signal that ended it), output, and duration in seconds."""

    command: tuple[str, ...]
    exit_status: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def text(self) -> str:
        """Standard output as text; bytes that are not UTF-8 become replacement characters."""
        return self.stdout.decode(errors="replace")


class CommandError(InfrastructureError):
    """A command failed."""

    def __init__(self, completed: Completed, *, hint: str | None = None) -> None:
        self.completed = completed
        printed = (completed.stderr or completed.stdout)[-TAIL:].decode(errors="replace").strip()
        status = completed.exit_status
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        super().__init__(
            f"{completed.command[0]} {how}: {printed or 'it printed nothing'}"
            f"\n  command: {' '.join(completed.command)}",
            hint=hint,
        )


class CommandMissing(InfrastructureError):
    """A program is not installed."""


class CommandTimedOut(TimedOut):
    """A command did not end in its time and was ended."""


class OutputLimitExceeded(InfrastructureError):
    """A command printed more than it may."""


def run(
    command: Sequence[str | Path],
    *,
    timeout: float,
    check: bool = True,
    stdin: bytes | IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    output: Output | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    capture_limit: int = CAPTURE_LIMIT,
    user: str | int | None = None,
    group: str | int | None = None,
    umask: int = -1,
) -> Completed:
    """Run `command` to its end and return what it did.

    `timeout` is in seconds; at its end the whole process group is killed. `output` gets standard output and
    standard error as they come (then neither is kept in the result); `stdout` sends standard output to an open
    file instead. `environment` is added to this process's own. `capture_limit` bounds in bytes what is kept or
    passed on.

    Raises CommandMissing, CommandTimedOut, OutputLimitExceeded, and, with `check`, CommandError for a status
    other than 0.
    """
    words = tuple(str(word) for word in command)
    started = time.monotonic()
    process = _start(
        words,
        stdin=stdin,
        stdout=stdout or subprocess.PIPE,
        stderr=subprocess.STDOUT if output else subprocess.PIPE,
        cwd=cwd,
        environment=environment,
        user=user,
        group=group,
        umask=umask,
    )
    try:
        captured = _communicate(process, words, stdin, output, started + timeout, capture_limit)
    finally:
        kill_group(process)
    completed = Completed(words, process.returncode, captured["stdout"], captured["stderr"], time.monotonic() - started)
    if check and completed.exit_status != 0:
        raise CommandError(completed)
    return completed


def start(
    command: Sequence[str | Path],
    *,
    log: Path | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    user: str | int | None = None,
    group: str | int | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    new_session: bool = True,
    end_with_parent: bool = False,
    inherit: bool = False,
) -> Process:
    """Start a program that goes on in the background, its output appended to `log`; the caller ends it.

    A log that has grown beyond LOG_LIMIT is set aside before, as `LOG.1`, in the place of the one before it.
    With `inherit` it prints where this process prints.
    With `end_with_parent` the kernel sends it SIGTERM when this process dies, however it dies.
    Raises CommandMissing.
    """
    words = tuple(str(word) for word in command)
    with contextlib.ExitStack() as stack:
        sink: int | IO[bytes] = subprocess.DEVNULL
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            if log.exists() and log.stat().st_size > LOG_LIMIT:
                log.rename(log.with_name(f"{log.name}.1"))
            sink = stack.enter_context(log.open("ab"))
        return _start(
            words,
            stdin=stdin,
            stdout=None if inherit else stdout if stdout is not None else sink,
            stderr=None if inherit else sink,
            cwd=cwd,
            environment=environment,
            user=user,
            group=group,
            umask=-1,
            new_session=new_session,
            end_with_parent=end_with_parent,
        )


def set_aside(log: Path) -> None:
    """Begin a log anew that has grown beyond LOG_LIMIT while a program appends to it; what it had is `LOG.1` then.

    What is written in the moment between is lost.
    """
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)


def replace(command: Sequence[str | Path]) -> None:
    """Become `command` (an interactive shell, for example); returns only by raising CommandMissing."""
    words = [str(word) for word in command]
    try:
        os.execvp(words[0], words)  # noqa: S606 - the one place that may
    except OSError as error:
        raise _missing(words[0], error) from error


def wait(process: Process, timeout: float) -> bool:
    """Wait up to `timeout` seconds for a program to end; False if it still runs."""
    try:
        process.wait(max(timeout, 0.01))
    except subprocess.TimeoutExpired:
        return False
    return True


def kill_group(process: Process) -> None:
    """End a process and everything it started, and reap it."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _start(
    words: tuple[str, ...],
    *,
    stdin: bytes | IO[bytes] | int | None,
    stdout: int | IO[bytes] | None,
    stderr: int | IO[bytes] | None,
    cwd: Path | None,
    environment: Mapping[str, str] | None,
    user: str | int | None,
    group: str | int | None,
    umask: int,
    new_session: bool = True,
    end_with_parent: bool = False,
) -> Process:
    if isinstance(stdin, bytes):
        source: int | IO[bytes] = subprocess.PIPE
    else:
        source = subprocess.DEVNULL if stdin is None else stdin
    try:
        return subprocess.Popen(
            words,
            stdin=source,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env={**os.environ, **environment} if environment is not None else None,
            start_new_session=new_session,
            user=user,
            group=group,
            extra_groups=[] if user is not None and os.geteuid() == 0 else None,
            umask=umask,
            # Safe here: the function only makes one system call, and holds no lock of ours.
            preexec_fn=parent.end_with_parent if end_with_parent else None,  # noqa: PLW1509
        )
    except (FileNotFoundError, PermissionError) as error:
        raise _missing(words[0], error) from error


def _missing(program: str, error: OSError) -> CommandMissing:
    return CommandMissing(
        f"cannot run {program}: {error.strerror}",
        hint="'cleanroom doctor' lists the system packages that are missing",
    )


def _communicate(
    process: Process,
    words: tuple[str, ...],
    stdin: bytes | IO[bytes] | None,
    output: Output | None,
    deadline: float,
    limit: int,
) -> dict[str, bytes]:
    """Feed and drain the process until it ends or the deadline (monotonic seconds) comes."""
    kept: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
    pending = memoryview(stdin) if isinstance(stdin, bytes) else memoryview(b"")
    total, ended = 0, False
    with selectors.DefaultSelector() as selector:
        _register(selector, process)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise _timed_out(words)
            # A program may leave a child behind that holds the pipe: once it ended, wait for no more output. What it
            # printed before it ended may have come since the last look.
            ready = selector.select(0 if ended else min(left, 0.5))
            if not ready:
                if ended:
                    break
                ended = process.poll() is not None
            for key, _ in ready:
                if key.data == "stdin":
                    pending = _feed(process, selector, pending)
                    continue
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                total += len(chunk)
                if total > limit:
                    raise OutputLimitExceeded(f"{words[0]} printed more than {limit} bytes and was ended")
                if output is None:
                    kept[key.data] += chunk
                elif chunk:
                    output(chunk)
    try:
        process.wait(max(deadline - time.monotonic(), 0.01))
    except subprocess.TimeoutExpired:
        raise _timed_out(words) from None
    return {name: bytes(value) for name, value in kept.items()}


def _register(selector: selectors.BaseSelector, process: Process) -> None:
    for stream, name in ((process.stdout, "stdout"), (process.stderr, "stderr")):
        if stream is not None:
            selector.register(stream, selectors.EVENT_READ, name)
    if process.stdin is not None:
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE, "stdin")


def _feed(process: Process, selector: selectors.BaseSelector, pending: memoryview) -> memoryview:
    assert process.stdin is not None
    try:
        pending = pending[os.write(process.stdin.fileno(), pending[:_CHUNK]) :] if pending else pending
    except BlockingIOError:
        return pending
    except BrokenPipeError:
        pending = memoryview(b"")
    if not pending:
        selector.unregister(process.stdin)
        process.stdin.close()
    return pending


def _timed_out(words: tuple[str, ...]) -> CommandTimedOut:
    return CommandTimedOut(f"{words[0]} did not end in its time and was ended\n  command: {' '.join(words)}")

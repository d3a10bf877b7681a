"""The one module that runs subprocesses, with real programs and with fakes that PATH leads to."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cleanroom_base import run
from cleanroom_base.errors import InfrastructureError, TimedOut

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program `builder` on PATH that does what a test writes into it."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = tmp_path / "builder"
    program.touch(mode=0o755)
    return program


def test_what_a_program_does_is_told(fake: Path) -> None:
    fake.write_text('#!/bin/sh\ncat\necho "$1 $WORD" >&2\nexit 3\n')
    done = run.run(["builder", "an argument"], timeout=20, check=False, stdin=b"in", environment={"WORD": "out"})
    assert (done.exit_status, done.stdout, done.stderr) == (3, b"in", b"an argument out\n")


def test_a_program_that_fails_is_named_with_the_end_of_what_it_printed(fake: Path) -> None:
    fake.write_text("#!/bin/sh\nseq 100000 >&2\nexit 4\n")
    with pytest.raises(run.CommandError) as raised:
        run.run(["builder", "--now"], timeout=20)
    message = str(raised.value)
    assert "builder ended with status 4" in message
    assert "command: builder --now" in message
    assert "100000" in message
    assert len(message) < run.TAIL + 500


def test_a_signal_is_told_as_one(fake: Path) -> None:
    fake.write_text("#!/bin/sh\nkill -TERM $$\n")
    with pytest.raises(run.CommandError, match="was ended by signal 15"):
        run.run(["builder"], timeout=20)


def test_a_missing_program_is_told_with_a_hint() -> None:
    with pytest.raises(run.CommandMissing, match="cannot run no-such-program") as raised:
        run.run(["no-such-program"], timeout=20)
    assert "doctor" in (raised.value.hint or "")


def test_what_takes_too_long_is_ended_with_all_that_it_started(fake: Path, tmp_path: Path) -> None:
    fake.write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path}/child\nwait\n")
    with pytest.raises(run.CommandTimedOut) as raised:
        run.run(["builder"], timeout=2)
    assert isinstance(raised.value, TimedOut)
    assert _goes(int((tmp_path / "child").read_text()))


def test_a_child_left_behind_that_holds_the_pipe_does_not_keep_us(fake: Path, tmp_path: Path) -> None:
    fake.write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path}/child\necho done\n")
    try:
        assert run.run(["builder"], timeout=20).text == "done\n"
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("passed_on", [False, True])
def test_who_prints_without_end_is_ended(fake: Path, passed_on: bool) -> None:
    fake.write_text("#!/bin/sh\nexec yes\n")
    seen: list[bytes] = []
    with pytest.raises(run.OutputLimitExceeded) as raised:
        run.run(["builder"], timeout=20, capture_limit=100_000, output=seen.append if passed_on else None)
    assert isinstance(raised.value, InfrastructureError)
    assert sum(map(len, seen)) <= 100_000


def test_output_is_passed_on_as_it_comes(fake: Path) -> None:
    fake.write_text("#!/bin/sh\necho one\necho two >&2\n")
    seen: list[bytes] = []
    done = run.run(["builder"], timeout=20, output=seen.append)
    assert b"".join(seen) == b"one\ntwo\n"
    assert (done.stdout, done.stderr) == (b"", b"")


def test_nothing_is_read_by_a_shell(fake: Path) -> None:
    fake.write_text('#!/bin/sh\nprintf %s "$1"\n')
    assert run.run(["builder", "$(id); `id` > /x"], timeout=20).text == "$(id); `id` > /x"


def test_a_program_that_does_not_read_its_input_is_no_error(fake: Path) -> None:
    fake.write_text("#!/bin/sh\nexit 0\n")
    assert run.run(["builder"], timeout=20, stdin=b"x" * 1_000_000).exit_status == 0


def test_a_large_log_is_set_aside(fake: Path, tmp_path: Path) -> None:
    fake.write_text("#!/bin/sh\necho new\n")
    log = tmp_path / "log"
    log.write_text("old\n")
    run.start(["builder"], log=log).wait(20)
    assert log.read_text() == "old\nnew\n"
    os.truncate(log, run.LOG_LIMIT + 1)
    run.start(["builder"], log=log).wait(20)
    assert log.read_text() == "new\n"
    assert (tmp_path / "log.1").stat().st_size == run.LOG_LIMIT + 1


def test_a_log_that_grows_is_set_aside_while_its_program_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = run.start(["sh", "-c", "echo old; read line; echo new"], log=log, stdin=subprocess.PIPE)
    assert process.stdin is not None
    while not log.read_text():
        time.sleep(0.02)
    run.set_aside(log)
    assert log.read_text() == "old\n"
    os.truncate(log, run.LOG_LIMIT + 1)
    run.set_aside(log)
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert run.wait(process, 20)
    run.kill_group(process)
    assert log.read_text() == "new\n"
    assert (tmp_path / "log.1").stat().st_size == run.LOG_LIMIT + 1
    run.set_aside(tmp_path / "none")


def _goes(process: int, seconds: float = 20) -> bool:
    """Whether it ends: what was killed takes a moment to die on a busy machine."""
    deadline = time.monotonic() + seconds
    while not _gone(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    return _gone(process)


def _gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_what_is_printed_just_before_the_end_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine under load, where we are asked to go on only when the program has printed and ended."""
    at_once = subprocess.Popen.poll

    def late(process: subprocess.Popen[bytes]) -> int | None:
        process.wait(30)
        return at_once(process)

    monkeypatch.setattr(subprocess.Popen, "poll", late)
    assert run.run(["sh", "-c", "sleep 0.7; echo printed"], timeout=30).stdout == b"printed\n"

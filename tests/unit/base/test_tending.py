"""Processes that are kept running."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from cleanroom_base.tending import Service, Tended, end_all


def _until_ended(tended: Tended) -> None:
    deadline = time.monotonic() + 30
    while tended.process is not None and tended.process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_ends_is_started_again_after_a_pause(tmp_path: Path) -> None:
    log = tmp_path / "log"
    tended = Tended(Service("short", ("sh", "-c", 'echo "$SAID"'), {"SAID": "hello"}))
    tended.tend(log)
    first = tended.process
    _until_ended(tended)
    tended.tend(log)
    # It has just failed: not yet.
    assert (tended.process, tended.restarts) == (None, 1)
    assert tended.next_start > time.monotonic() - 1
    tended.next_start = 0.0
    tended.tend(log)
    assert tended.process is not None and first is not None and tended.process.pid != first.pid
    _until_ended(tended)
    assert log.read_text() == "hello\nhello\n"


def test_what_runs_is_left_alone_and_ended_with_what_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    stubborn = f"trap '' TERM; sleep 600 & echo $! > {child}; wait; wait"
    tended = [
        Tended(Service("meek", (sys.executable, "-c", "import time; time.sleep(600)"))),
        Tended(Service("wild", ("sh", "-c", f"{stubborn}; exit 1"))),
    ]
    for one in tended:
        one.tend(tmp_path / "log")
    before = [one.process for one in tended]
    deadline = time.monotonic() + 30
    while not child.exists() or not child.read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for one in tended:
        one.tend(tmp_path / "log")
    assert [one.process for one in tended] == before
    process = int(child.read_text())
    end_all(tended, grace=0.5)
    assert before[0] is not None and before[0].returncode == -signal.SIGTERM
    # The kernel may need a moment to hand it on to be reaped.
    while Path(f"/proc/{process}").exists() and b"sleep" in Path(f"/proc/{process}/cmdline").read_bytes():
        assert time.monotonic() < deadline + 30
        time.sleep(0.01)

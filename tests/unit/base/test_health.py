"""What processes say of themselves, and what it means when they say nothing."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cleanroom_base import health
from cleanroom_base.settings import Settings, load
from cleanroom_master import cli

PROCESS = """
import sys, time
from cleanroom_base import health
from cleanroom_base.settings import load
pulse = health.Server.begin(load(), "watcher", patience=float(sys.argv[1]))
pulse.turn("a ref", within=0)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("CLEANROOM_STATE", str(tmp_path))
    monkeypatch.setenv("CLEANROOM_SITE", str(tmp_path))
    settings = load()
    yield settings
    shutil.rmtree(settings.runtime, ignore_errors=True)


@contextmanager
def process(patience: float) -> Iterator[subprocess.Popen[str]]:
    """A process with one loop, which never comes round again."""
    command = [sys.executable, "-c", PROCESS, str(patience)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None and started.stdout.readline() == "ready\n"
            yield started
        finally:
            started.kill()


def say(settings: Settings, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    """What the command answers to a script."""
    status = cli.run(["health", *words, "--format", "json"])
    printed = capsys.readouterr().out
    return status, json.loads(printed) if printed else None


def test_one_that_lives_and_turns_is_healthy(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with process(patience=600) as started:
        status, [found] = say(settings, capsys)
    assert (status, found["name"], found["state"], found["process"]) == (0, "watcher", "healthy", started.pid)
    [loop] = found["loops"]
    assert (loop["name"], loop["waits_for"], loop["turns"], loop["limit"]) == ("main", "a ref", 1, 600)
    assert loop["turned_at"].endswith("Z") and found["since"].endswith("Z")


def test_a_loop_that_is_overdue_is_stuck_though_its_process_answers(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with process(patience=0) as started:
        status, [found] = say(settings, capsys, "watcher")
    assert (status, found["state"], found["process"]) == (1, "stuck", started.pid)


def test_a_process_that_is_stopped_is_stuck(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with process(patience=600) as started:
        os.kill(started.pid, signal.SIGSTOP)
        # A signal is sent, not obeyed, when `kill` returns: its threads may still answer for a moment.
        os.waitid(os.P_PID, started.pid, os.WSTOPPED)
        status, [found] = say(settings, capsys, "watcher", "--timeout", "0.3")
        assert (status, found["state"], found["process"]) == (1, "stuck", None)
        os.kill(started.pid, signal.SIGCONT)
        assert say(settings, capsys, "watcher", "--timeout", "60")[0] == 0


def test_one_that_ended_or_never_was_does_not_run(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(settings, capsys) == (3, None)
    with process(patience=600):
        pass
    status, found = say(settings, capsys, "watcher", "other")
    assert status == 3
    assert [one["state"] for one in found] == ["not running", "not running"]
    # It is still known that it once was here.
    assert say(settings, capsys)[0] == 3


def test_another_process_of_the_name_takes_its_place(settings: Settings) -> None:
    with process(patience=600), process(patience=600) as second:
        [found] = health.ask(settings, ["watcher"])
    assert found["process"] == second.pid


def test_prometheus_is_told_the_same(settings: Settings) -> None:
    with process(patience=600):
        connection = health._Connection(health.socket_of(settings, "watcher"), 5)
        connection.request("GET", "/metrics")
        answer: http.client.HTTPResponse = connection.getresponse()
        text = answer.read().decode()
        connection.request("GET", "/elsewhere")
        assert connection.getresponse().status == 404
        connection.close()
    assert 'cleanroom_loop_turns_total{loop="main",service="watcher"} 1.0' in text
    assert "process_resident_memory_bytes" in text


def test_nobody_else_may_ask(settings: Settings) -> None:
    with process(patience=600):
        assert health.socket_of(settings, "watcher").stat().st_mode & 0o777 == 0o600


def test_asking_loads_none_of_the_other_commands() -> None:
    look = "import sys; from cleanroom_master import cli; cli._commands(['health']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60)
    assert not {"libvirt", "fastapi", "requests", "twisted"} & set(done.stdout.split())

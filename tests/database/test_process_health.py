"""Every process of the control plane, alone in the foreground: healthy, and stuck as soon as it is stopped."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from database_server import Server
from surroundings import variables

from cleanroom_base import health
from cleanroom_base.settings import Settings, load
from cleanroom_db.roles import Role

CLEANROOM = Path(sysconfig.get_path("scripts")) / "cleanroom"
# Each with a loop of it and what that waits for, when nothing happens.
PROCESSES = {
    "refs": ("main", "a recorded ref, or the next look"),
    "notifications": ("main", "changes to tell of, or a message that is due"),
    "publisher": ("main", "a release that passed, or a request"),
    "repository": ("main", "clients"),
    "web": ("main", "readers"),
    "delivery": ("main", "the next generation"),
    "master": ("attempts", "what is recorded, or the next look"),
}


@pytest.fixture
def environment(server: Server, name: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A site whose database is there, and where nothing runs."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        ports = [str(probe.getsockname()[1]) for probe in probes]
    keys = ("MASTER_PORT", "MASTER_WORKER_PORT", "REPOSITORY_PORT", "WEB_PORT")
    environment = {
        "CLEANROOM_STATE": str(tmp_path),
        "CLEANROOM_SITE": str(tmp_path),
        "CLEANROOM_DATABASE_URL": server.url(Role.OWNER, name),
        "CLEANROOM_DELIVERY_URL": "http://127.0.0.1:9/",
        **{f"CLEANROOM_{key}": port for key, port in zip(keys, ports, strict=True)},
    }
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "worker").write_text("secret")
    yield environment
    shutil.rmtree(load(environment).runtime, ignore_errors=True)


def _state(settings: Settings, name: str, timeout: float = 60.0) -> str:
    return str(health.ask(settings, [name], timeout=timeout)[0]["state"])


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_says_that_it_is_well_and_is_not_when_it_is_stopped(
    process: str, environment: dict[str, str], tmp_path: Path
) -> None:
    settings = load(environment)
    loop, waits_for = PROCESSES[process]
    with (tmp_path / "log").open("wb") as log:
        command = [CLEANROOM, "service", "run", process]
        started = subprocess.Popen(command, env={**variables(), **environment}, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        while True:
            [found] = health.ask(settings, [process], timeout=60)
            waits = {one["name"]: one["waits_for"] for one in found["loops"]}
            if waits.get(loop) == waits_for:
                break
            assert started.poll() is None and time.monotonic() < deadline, (found, (tmp_path / "log").read_text())
            time.sleep(0.1)
        # It became the process that it started: whoever tends it ends the right one.
        assert (found["state"], found["process"]) == ("healthy", started.pid)
        os.kill(started.pid, signal.SIGSTOP)
        # It may answer once more before it stands.
        while (said := _state(settings, process, timeout=0.5)) == "healthy":
            assert time.monotonic() < deadline
        assert said == "stuck"
        os.kill(started.pid, signal.SIGCONT)
        assert _state(settings, process) == "healthy"
    finally:
        started.terminate()
        os.kill(started.pid, signal.SIGCONT)
        try:
            started.wait(60)
        finally:
            started.kill()
    assert _state(settings, process) == "not running"

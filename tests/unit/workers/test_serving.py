"""The processes of a host, kept running by one command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sysconfig
import time
from pathlib import Path

from surroundings import variables

from cleanroom_base import health
from cleanroom_base.settings import load

WORKER = Path(sysconfig.get_path("scripts")) / "cleanroom-worker"
NAMES = ("worker", "guests", "phases")


def test_all_processes_of_a_host_run_until_it_is_told_to_end(tmp_path: Path) -> None:
    place = {"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path)}
    # No master answers: the worker waits for it, and is well.
    environment = {**place, "CLEANROOM_MASTER_WORKER_PORT": "9"}
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "worker").write_text("secret")
    settings = load(environment)
    with (tmp_path / "log").open("wb") as log:
        started = subprocess.Popen([WORKER, "serve"], env={**variables(), **environment}, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120

        def processes() -> dict[str, int]:
            """Those that are well, by their names."""
            found = health.ask(settings, NAMES, timeout=30)
            return {one["name"]: one["process"] for one in found if one["state"] == "healthy" and one["loops"]}

        while set(before := processes()) != set(NAMES):
            assert started.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        os.kill(before["phases"], signal.SIGKILL)
        while (now := processes()).get("phases") in (None, before["phases"]):
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        assert (now["worker"], now["guests"]) == (before["worker"], before["guests"])
        started.terminate()
        assert started.wait(60) == 0
        assert {one["state"] for one in health.ask(settings, NAMES)} == {"not running"}
    finally:
        started.kill()
        shutil.rmtree(settings.runtime, ignore_errors=True)

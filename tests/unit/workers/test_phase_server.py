"""The process that forks phases: what it runs is as if the client had run it, and ends when the client does."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from surroundings import variables

from cleanroom_base import health
from cleanroom_base.settings import Settings, load
from cleanroom_workers.phase_server import SOCKET, VARIABLE

# Says what it was given, then does as it is told: end with a status, break, or wait for a signal.
SERVER = """
import os, signal, sys, time
from pathlib import Path
from typing import Any
from cleanroom_base import health
from cleanroom_base.settings import Settings, load
from cleanroom_workers import phase_server

def run(arguments):
    print(arguments, os.getcwd(), os.environ.get("TOLD"), sys.stdin.read(), flush=True)
    sys.stderr.write("for people\\n")
    verb = arguments[0]
    if verb == "break":
        raise ValueError("broken")
    if verb == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if verb == "wait":
        def end(*_):
            Path(arguments[1]).write_text("ended")
            sys.exit(143)
        signal.signal(signal.SIGTERM, end)
        print("waits", flush=True)
        time.sleep(60)
    if verb == "program":
        import subprocess
        return subprocess.run(["sh", "-c", "exit 7"]).returncode
    return int(verb)

pulse = health.Pulse("phases")
with health.Server(load(), pulse, "phases") as answering:
    phase_server.serve(Path(sys.argv[1]), run, answering, lambda: pulse.turn("a phase", within=phase_server.TURN))
"""
CLIENT = """
import sys
from cleanroom_workers import phase_server
status = phase_server.ask(sys.argv[1:])
sys.exit(99 if status is None else status)
"""


def _settings(state: Path) -> Settings:
    return load({"CLEANROOM_STATE": str(state), "CLEANROOM_SITE": str(state)})


def _server(place: str, state: Path) -> subprocess.Popen[bytes]:
    """The server, in an installation of its own."""
    environment = {**variables(), "CLEANROOM_STATE": str(state), "CLEANROOM_SITE": str(state)}
    return subprocess.Popen([sys.executable, "-c", SERVER, place], env=environment)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[str]:
    place = str(tmp_path / SOCKET)
    server = _server(place, tmp_path)
    try:
        deadline = time.monotonic() + 30
        while not Path(place).is_socket():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield place
    finally:
        server.kill()
        server.wait(30)
        shutil.rmtree(_settings(tmp_path).runtime)


def _start(place: str, *arguments: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> Any:
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**variables(), VARIABLE: place, **(environment or {})},
        cwd=cwd,
    )


def test_it_runs_with_all_that_the_client_has(place: str, tmp_path: Path) -> None:
    with _start(place, "5", "a b", environment={"TOLD": "tolled"}, cwd=tmp_path) as client:
        out, errors = client.communicate("from the input", timeout=30)
    assert out == f"['5', 'a b'] {tmp_path} tolled from the input\n"
    assert errors == "for people\n"
    assert client.returncode == 5


def test_it_answers_for_its_health_while_phases_run(place: str, tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    with _start(place, "wait", str(tmp_path / "ended")) as client:
        client.stdin.close()
        assert client.stdout.readline().startswith("['wait'")
        [before] = health.ask(settings, ["phases"])
        [after] = health.ask(settings, ["phases"])
        client.send_signal(signal.SIGTERM)
        assert client.wait(30) == 143
    assert (before["state"], after["state"]) == ("healthy", "healthy")
    assert after["loops"][0]["turns"] > before["loops"][0]["turns"]


def test_large_environments_arrive(place: str) -> None:
    with _start(place, "0", environment={"TOLD": "x" * 100_000}) as client:
        out, _ = client.communicate("", timeout=30)
    assert out.count("x") == 100_000


def test_programs_that_it_starts_are_waited_for(place: str) -> None:
    with _start(place, "program") as client:
        client.communicate("", timeout=30)
    assert client.returncode == 7


@pytest.mark.parametrize("verb", ["break", "die"])
def test_what_breaks_is_no_failure_of_a_product(place: str, verb: str) -> None:
    with _start(place, verb) as client:
        _, errors = client.communicate("", timeout=30)
    assert client.returncode == 3
    assert ("ValueError: broken" in errors) is (verb == "break")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_as_its_client_does(place: str, tmp_path: Path, number: signal.Signals) -> None:
    ended = tmp_path / "ended"
    with _start(place, "wait", str(ended)) as client:
        client.stdin.close()
        while "waits" not in client.stdout.readline():
            pass
        client.send_signal(number)
        assert client.wait(30) == (143 if number is signal.SIGTERM else -number)
        deadline = time.monotonic() + 30
        while not ended.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_phases_go_on_when_the_server_is_killed(tmp_path: Path) -> None:
    place = str(tmp_path / SOCKET)
    with _server(place, tmp_path) as server:
        deadline = time.monotonic() + 30
        while not Path(place).is_socket():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with _start(place, "4") as client:
            # The phase waits for its input.
            while not list(_children(server.pid)):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            server.kill()
            server.wait(30)
            client.communicate("", timeout=30)
        assert client.returncode == 4
    # A socket without a server: the client does the work itself.
    with _start(place, "4") as client:
        client.communicate("", timeout=30)
    assert client.returncode == 99
    shutil.rmtree(_settings(tmp_path).runtime)


def _children(process: int) -> Iterator[int]:
    yield from map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())


def test_the_command_itself_loads_little() -> None:
    """What makes it quick is what it does not import before the server has the phase."""
    look = "import sys, cleanroom_workers.entry; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=30)
    loaded = set(done.stdout.split())
    assert not loaded & {
        "libvirt",
        "pathlib",
        "subprocess",
        "cleanroom_base.settings",
        "cleanroom_workers.host",
        "tarfile",
    }

"""Ends that nobody asked for: an emulator, libvirt or the whole host dies, or the disk is full. Nothing is left behind.

What guests and snapshots consist of is counted before and after, and the next guest starts. That a process dies which
starts guests or runs phases in them is in the tests of the life cycle, the pool, the layers and the snapshots.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import traces
from surroundings import IMAGE, variables

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import Settings
from cleanroom_workers import groups, mounts
from cleanroom_workers.guest import Guest
from cleanroom_workers.host import Host
from cleanroom_workers.libvirt_access import State
from cleanroom_workers.plan import Limits
from cleanroom_workers.records import Owner

# As in the other tests of emulated guests, so that they share one snapshot.
LIMITS = Limits(processors=2, memory=1024, disk=3072, processes=1000)
_WAIT = 120.0

pytestmark = pytest.mark.timeout(400)


def _container(host: Host, owner: Owner | None = None) -> Guest:
    return host.reset(IMAGE, isolation="container", owner=owner or Owner.current())


def _machine(host: Host, owner: Owner | None = None) -> Guest:
    return host.reset(IMAGE, isolation="emulated", owner=owner or Owner.current(), limits=LIMITS)


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + _WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _everything(settings: Settings) -> dict[str, list[str]]:
    return {**traces.of_guests(settings), **traces.of_snapshots(settings)}


@pytest.fixture(scope="module")
def snapshot(host: Host) -> None:
    """There is one from which machines start."""
    _machine(host).destroy()


@pytest.fixture
def same(host: Host, settings: Settings, snapshot: None) -> Iterator[None]:
    """All is as it was before the test, once it was looked for guests that nobody claims; and guests start."""
    before = _everything(settings)
    yield
    host.reap()
    assert traces.of_guests(settings) == {kind: before[kind] for kind in traces.of_guests(settings)}
    for guest in (_container(host), _machine(host)):
        assert guest.succeed(["echo", "here"], timeout=60).text == "here\n"
        guest.destroy()
    assert _everything(settings) == before


def _daemon(settings: Settings) -> int:
    return int((settings.runtime / "libvirt/libvirtd.pid").read_text(encoding="ascii"))


@pytest.mark.usefixtures("same")
def test_an_emulator_that_was_killed(host: Host, settings: Settings) -> None:
    with _machine(host) as guest:
        running = traces.processes(settings, guest.name)
        [emulator] = [number for number, program in running.items() if program.startswith("qemu")]
        os.kill(emulator, signal.SIGKILL)
        _until(lambda: guest.state() is not State.RUNNING)
        assert guest.state() is not State.POWERED_OFF


@pytest.mark.usefixtures("same")
def test_libvirt_that_was_killed_while_a_guest_starts(host: Host, settings: Settings) -> None:
    before = set(settings.state.glob("guests/*/port"))
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(_machine, host)
        _until(lambda: set(settings.state.glob("guests/*/port")) - before)
        os.kill(_daemon(settings), signal.SIGKILL)
        with pytest.raises(InfrastructureError):
            starting.result(100)
    assert len(host.reap()) == 1


_OWNER = """
import sys
from cleanroom_base.settings import load
from cleanroom_workers.host import Host
from cleanroom_workers.plan import Limits
from cleanroom_workers.records import Owner
host = Host.open(load())
tell = lambda line: print(line, flush=True)
host.reset("debian-12", isolation="emulated", owner=Owner.current(), limits=Limits(2, 1024, 3072, 1000), observer=tell)
"""


@contextmanager
def _little_room(directory: Path, size: str) -> Iterator[None]:
    """Have so little disk at `directory`; what is there is away meanwhile."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.mark.usefixtures("same")
def test_a_disk_that_fills_up_while_a_snapshot_is_made(
    host: Host, settings: Settings, environment: dict[str, str]
) -> None:
    given = {**variables(), **environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    with _little_room(settings.state / "snapshots", "64m"):
        with subprocess.Popen([sys.executable, "-c", _OWNER], env=given, stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout is not None
            told = next(line for line in owner.stdout if "cannot be restored" in line)
            # It goes on to boot, for half a minute.
            owner.send_signal(signal.SIGKILL)
        assert "is booted" in told
        host.reap()
        assert traces.of_snapshots(settings)["snapshots"] == []


def _end_as_a_restart_does(settings: Settings) -> None:
    """End all processes, mounts and devices of an installation, without any of its own doing."""
    daemon, state = _daemon(settings), settings.state
    names = [path.name for path in (state / "guests").iterdir()]
    notes = [settings.runtime / "proxy.json", *(settings.runtime / "snapshots").glob("*.holder")]
    doomed = [daemon, *traces.processes(settings)]
    doomed += [json.loads(note.read_text(encoding="utf-8"))["process"] for note in notes]
    for number in doomed:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    _until(lambda: not traces.processes(settings))
    for name in names:
        groups.remove(name)
    for place in [*mounts.below(state), *mounts.below(settings.runtime)]:
        mounts.unmount(place)
    chosen = json.loads((state / "network.json").read_text(encoding="utf-8"))
    rules = "".join(f"delete table {family} {chosen['name']}\n" for family in ("bridge", "inet"))
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    subprocess.run(["ip", "link", "delete", chosen["bridge"]], check=True)
    for link in Path("/sys/class/net").glob(f"cg{settings.instance[:6]}*"):
        subprocess.run(["ip", "link", "delete", link.name], check=True)
    shutil.rmtree(settings.runtime)


@pytest.mark.usefixtures("same")
def test_a_host_that_starts_again(host: Host, settings: Settings) -> None:
    gone = Owner(os.getpid(), 0)  # a process of before the restart
    guests = [_container(host, gone), _machine(host, gone), host.reset(IMAGE, isolation="container")]
    _end_as_a_restart_does(settings)
    with closing(Host.open(settings)) as again:
        assert {record.name for record in again.guests() if record.state == "destroyed"} == {g.name for g in guests}
        assert set(again.reap()) == {guest.name for guest in guests}

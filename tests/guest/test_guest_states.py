"""States of a guest that are kept, and guests that go back to one: a container by its files, a machine as a whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from surroundings import IMAGE, variables
from traces import of_guests

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.run import CommandTimedOut
from cleanroom_base.settings import Settings
from cleanroom_workers.guest import Guest
from cleanroom_workers.host import Host
from cleanroom_workers.plan import Limits
from cleanroom_workers.records import Owner
from cleanroom_workers.room import DiskFull
from cleanroom_workers.saved_states import SavedState

# As in the other tests of emulated guests, so that they share one snapshot.
LIMITS = Limits(processors=2, memory=1024, disk=3072, processes=1000)
SMALL = Limits(processors=1, memory=512, disk=600, processes=300)
_WHO = ["sh", "-c", "hostname; cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub /sys/class/net/eth0/address"]


@pytest.fixture(params=["container", "emulated"])
def guest(host: Host, settings: Settings, request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A guest of which nothing is left in the end."""
    before = of_guests(settings)
    limits = SMALL if request.param == "container" else LIMITS
    with host.reset(IMAGE, isolation=request.param, owner=Owner.current(), limits=limits) as guest:
        yield guest
    assert of_guests(settings) == before


def _keep(host: Host, guest: Guest, name: str) -> SavedState:
    with host.saved_states(guest.name) as states:
        return states.keep(name)


def _roll_back(host: Host, guest: Guest, name: str) -> Guest:
    with host.saved_states(guest.name) as states:
        states.roll_back(name)
    return host.guest(guest.name)


def _listed(host: Host, guest: Guest) -> list[str]:
    with host.saved_states(guest.name) as states:
        return [state.name for state in states.all()]


def test_a_guest_is_what_it_was(host: Host, guest: Guest) -> None:
    who = guest.succeed(_WHO, timeout=60).text
    change = "echo {0} > /srv/file; echo {0} > /dev/shm/memory"
    guest.succeed(["sh", "-c", change.format("early") + "; setsid sleep 1000 > /dev/null 2>&1 &"], timeout=60)
    machine = guest.isolation == "emulated"
    if machine:
        guest.succeed(["date", "--set=yesterday"], timeout=60)
    kept = _keep(host, guest, "early")
    assert kept.size > (100 << 20 if machine else 100 << 10)
    guest.succeed(["sh", "-c", change.format("late") + "; rm -r /usr/share/doc /etc/apt; pkill sleep"], timeout=60)
    _keep(host, guest, "late")
    assert _listed(host, guest) == ["early", "late"]
    drawn = set()
    for _ in range(2):
        guest = _roll_back(host, guest, "early")
        drawn.add(guest.succeed(["sh", "-c", "head -c 16 /dev/urandom | od -An -tx1"], timeout=60).text)
        script = "cat /srv/file /dev/shm/memory; pgrep -c -x sleep; ls -d /etc/apt /usr/share/doc"
        found = guest.run(["sh", "-c", script], timeout=60).text.split()
        # A container's memory is no part of it.
        assert found == ["early", *(["early", "1"] if machine else ["0"]), "/etc/apt", "/usr/share/doc"]
        assert guest.succeed(_WHO, timeout=60).text == who
        assert abs(float(guest.succeed(["date", "+%s.%N"], timeout=60).text) - time.time()) < 30
        guest.succeed(["sh", "-c", change.format("again")], timeout=60)
    assert len(drawn) == 2
    assert host.reap() == []
    guest = _roll_back(host, guest, "late")
    assert guest.succeed(["cat", "/srv/file"], timeout=60).text == "late\n"
    with host.saved_states(guest.name) as states:
        states.remove("late")
        with pytest.raises(InputError, match="no snapshot late"):
            states.roll_back("late")
        with pytest.raises(InputError, match="no snapshot late"):
            states.remove("late")
        with pytest.raises(InputError, match="already"):
            states.keep("early")
        with pytest.raises(InputError, match="cannot be the name"):
            states.keep("../early")
    _keep(host, guest, "late")


@pytest.fixture
def small(host: Host, settings: Settings) -> Iterator[Guest]:
    before = of_guests(settings)
    with host.reset(IMAGE, isolation="container", owner=Owner.current(), limits=SMALL) as guest:
        yield guest
    assert of_guests(settings) == before


def test_nothing_is_kept_where_there_is_no_room(host: Host, settings: Settings, small: Guest) -> None:
    little = Host(replace(settings, values={**settings.values, "storage.minimum_free": 1 << 29}))
    with pytest.raises(DiskFull), little.saved_states(small.name) as states:
        states.keep("early")
    little.close()
    assert _listed(host, small) == []
    small.succeed(["touch", "/srv/file"], timeout=60)


def test_a_disk_that_fills_up_while_a_state_is_kept(host: Host, settings: Settings, small: Guest) -> None:
    states = settings.state / "guests" / small.name / "states"
    states.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", states], check=True)
    small.succeed(["sh", "-c", "head -c 5000000 /dev/urandom > /srv/file"], timeout=20)
    with pytest.raises(InfrastructureError, match="No space left"):
        _keep(host, small, "early")
    assert list(states.iterdir()) == []
    subprocess.run(["umount", states], check=True)
    small.succeed(["rm", "/srv/file"], timeout=20)
    _keep(host, small, "early")


def test_a_disk_that_fills_up_while_qemu_keeps_a_state(host: Host, settings: Settings) -> None:
    before = of_guests(settings)
    guests = settings.state / "guests"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=711", "tmpfs", guests], check=True)
    try:
        with host.reset(IMAGE, isolation="emulated", owner=Owner.current(), limits=LIMITS) as guest:
            with pytest.raises(DiskFull):
                _keep(host, guest, "early")
            # Nothing half is left, of ours or of QEMU's.
            assert not list((guests / guest.name / "states").iterdir())
            disk = guests / guest.name / "disk.qcow2"
            shown = subprocess.run(["qemu-img", "info", "--force-share", disk], check=True, capture_output=True)
            assert b"Snapshot list" not in shown.stdout
            # It may have to write meanwhile, which it cannot; once somebody made room it goes on.
            guest.disconnect()
            writes = "echo here > /srv/file; sync"
            with suppress(InfrastructureError, CommandTimedOut):
                host.guest(guest.name).run(["sh", "-c", f"head -c 9000000 /dev/zero > /srv/more; {writes}"], timeout=20)
            guest.disconnect()
            subprocess.run(["mount", "-o", "remount,size=1g", guests], check=True)
            again = host.guest(guest.name)
            assert again.succeed(["sh", "-c", f"{writes}; cat /srv/file"], timeout=60).text == "here\n"
            _keep(host, again, "early")
            assert _listed(host, again) == ["early"]
            again.succeed(["rm", "/srv/file"], timeout=60)
            again = _roll_back(host, again, "early")
            assert again.succeed(["cat", "/srv/file"], timeout=60).text == "here\n"
    finally:
        subprocess.run(["umount", "--lazy", guests], check=True)
    assert of_guests(settings) == before


_WORKER = """
import sys
from cleanroom_base.settings import load
from cleanroom_workers.host import Host
with Host(load()).saved_states(sys.argv[1]) as states:
    getattr(states, sys.argv[2])("early")
"""


def _kill_in(program: str, guest: Guest, work: str, environment: dict[str, str], place: Path) -> None:
    """Have another process do a work, and kill it where it runs a program."""
    started = place / "started"
    place.mkdir()
    (place / program).write_text(f"#!/bin/sh\necho $$ > {started}.new\nmv {started}.new {started}\nexec sleep 100\n")
    (place / program).chmod(0o755)
    path = {"PATH": f"{place}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _WORKER, guest.name, work]
    with subprocess.Popen(command, env={**variables(), **environment, **path}) as worker:
        deadline = time.monotonic() + 60
        while not started.exists():
            assert worker.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        worker.send_signal(signal.SIGKILL)
    os.kill(int(started.read_text(encoding="ascii")), signal.SIGKILL)


def test_work_that_is_killed(host: Host, small: Guest, environment: dict[str, str], tmp_path: Path) -> None:
    _kill_in("cp", small, "keep", environment, tmp_path / "keeping")
    # It stood still at that moment.
    small.succeed(["sh", "-c", "echo early > /srv/file; sync"], timeout=20)
    assert _listed(host, small) == []
    _keep(host, small, "early")
    small.succeed(["sh", "-c", "echo late > /srv/file"], timeout=20)
    _kill_in("cp", small, "roll_back", environment, tmp_path / "preparing")
    assert host.reap() == []
    assert small.succeed(["cat", "/srv/file"], timeout=20).text == "late\n"
    small = _roll_back(host, small, "early")
    assert small.succeed(["cat", "/srv/file"], timeout=20).text == "early\n"
    group = Path(f"/sys/fs/cgroup/pids/cleanroom-{small.name}/pids.max")
    assert not group.exists() or int(group.read_text(encoding="ascii")) == SMALL.processes
    # Between two lives nobody can use it any more.
    _kill_in("umount", small, "roll_back", environment, tmp_path / "returning")
    assert host.reap() == [small.name]

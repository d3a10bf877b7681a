"""The ready pool with real guests: handed over once, replaced, never used again, and gone with its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from surroundings import IMAGE, variables

from cleanroom_base.settings import Settings
from cleanroom_workers.guest import Guest
from cleanroom_workers.host import Host
from cleanroom_workers.pool import Kind
from cleanroom_workers.records import GuestRecord, Owner

PROGRAM = Path(sys.executable).with_name("cleanroom-worker")

pytestmark = pytest.mark.timeout(180)


@contextmanager
def _pool(host: Host, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([PROGRAM, "pool"], env={**variables(), **environment})
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)
        host.reap()


@pytest.fixture
def kind(host: Host, settings: Settings) -> Iterator[Kind]:
    """Guests of this kind, and no other, are wanted."""
    notes = settings.state / "pool"
    _forget(notes)
    kind = Kind(IMAGE, "container", "none", host.limits)
    host.demand.note(kind, 1)
    yield kind
    _forget(notes)


def _forget(notes: Path) -> None:
    for note in notes.glob("*"):
        note.unlink()


def _until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _one_ready(host: Host) -> GuestRecord:
    _until(host.ready, "a guest is ready")
    return host.ready()[0]


def _asked(host: Host, kind: Kind) -> Guest:
    return host.reset(kind.image, isolation=kind.isolation, network=kind.network, owner=Owner.current())


def test_a_ready_guest_is_handed_over_once_and_replaced(
    traces: None, host: Host, environment: dict[str, str], kind: Kind
) -> None:
    with _pool(host, environment):
        first = _one_ready(host)
        with _asked(host, kind) as guest:
            assert guest.name == first.name
            assert guest.method == "overlay, kept ready"
            assert guest.succeed(["cat", "/proc/sys/kernel/hostname"], timeout=10).text.strip() == guest.name
            assert host.verify(guest.name) == []
            second = _one_ready(host)
            assert second.name != guest.name
            assert second.address != guest.address
        name = guest.name
        guest = _asked(host, kind)
        assert guest.name == second.name
        guest.dismiss()
        _until(lambda: not {name, guest.name} & {found.name for found in host.guests()}, "both are gone")


def test_another_kind_is_not_taken_for_it(host: Host, environment: dict[str, str], kind: Kind) -> None:
    with _pool(host, environment):
        ready = _one_ready(host)
        with host.reset(IMAGE, isolation="container", network="mirror", owner=Owner.current()) as guest:
            assert guest.name != ready.name
            assert guest.method == "overlay"


def test_nothing_that_a_guest_wrote_is_seen_by_the_next(host: Host, environment: dict[str, str], kind: Kind) -> None:
    """A canary in every place that can be written: disk, memory file systems, shared memory, groups, console."""
    canary = f"canary-{os.getpid()}"
    places = ("/", "/etc", "/usr/bin", "/var/lib/dpkg", "/var/tmp", "/tmp", "/run", "/dev/shm", "/root", "/home")
    write = f"""
for place in {" ".join(places)}; do echo {canary} > $place/{canary}; done
echo {canary} >> /etc/passwd
echo {canary} > /dev/console
mkdir -p /sys/fs/cgroup/{canary} /sys/fs/cgroup/*/{canary} 2> /dev/null
hostname {canary}
perl -e '$k = 0x43414e41; shmget($k, 4096, 01666); msgget($k, 01666)'
nohup sh -c 'exec -a {canary} sleep 1000' > /dev/null 2>&1 &
"""
    look = f"""
find / -xdev -name '*{canary}*' 2> /dev/null
find /run /dev /tmp /sys/fs/cgroup -name '*{canary}*' 2> /dev/null
grep -s {canary} /etc/passwd /proc/sys/kernel/hostname /proc/[0-9]*/comm
ipcs -a | grep -i 43414e41
grep -rls {canary} /var/log /run /var/lib 2> /dev/null
true
"""
    with _pool(host, environment):
        _one_ready(host)
        with _asked(host, kind) as guest:
            guest.succeed(["bash", "-c", write], timeout=30)
            seen = guest.succeed(["bash", "-c", look], timeout=60).text
            for place in places:
                assert f"{place.rstrip('/')}/{canary}" in seen, "the look would not find it"
            # One that was prepared while the canary was there, and one that is prepared after it.
            beside = _asked(host, kind)
        after = _asked(host, kind)
        for other in (beside, after):
            with other:
                assert other.succeed(["bash", "-c", look], timeout=60).text == ""
                assert host.verify(other.name) == []


def test_a_pool_that_was_killed_leaves_nothing_behind(
    traces: None, host: Host, environment: dict[str, str], kind: Kind
) -> None:
    with _pool(host, environment) as process:
        ready = _one_ready(host)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        # Nobody tends it any more, so nobody gets it.
        with _asked(host, kind) as guest:
            assert guest.name != ready.name
    assert ready.name not in {found.name for found in host.guests()}


def test_a_guest_in_use_outlives_the_pool_that_made_it(host: Host, environment: dict[str, str], kind: Kind) -> None:
    with _pool(host, environment):
        _one_ready(host)
        guest = _asked(host, kind)
    with guest:
        assert guest.run(["echo", "here"], timeout=10).text == "here\n"


def test_a_ready_guest_that_died_is_not_handed_over(host: Host, environment: dict[str, str], kind: Kind) -> None:
    with _pool(host, environment) as process:
        ready = _one_ready(host)
        process.send_signal(signal.SIGSTOP)
        try:
            assert ready.first is not None
            os.kill(ready.first.process, signal.SIGKILL)
            _until(lambda: ready.first is not None and not ready.first.alive(), "it died")
            with _asked(host, kind) as guest:
                assert guest.name != ready.name
        finally:
            process.send_signal(signal.SIGCONT)


def test_ready_guests_make_way_for_the_removal_of_their_image(
    host: Host, settings: Settings, environment: dict[str, str], kind: Kind
) -> None:
    users = settings.state / "images" / IMAGE / "users"
    with _pool(host, environment) as process:
        ready = _one_ready(host)
        # It would prepare the next one at its next look.
        process.send_signal(signal.SIGSTOP)
        try:
            assert (users / ready.name).exists()
            host.discard_ready("debian-13")
            assert (users / ready.name).exists()
            host.discard_ready(IMAGE)
            assert not (users / ready.name).exists()
        finally:
            process.send_signal(signal.SIGCONT)


def test_ready_guests_of_an_image_that_was_changed_are_ended(
    host: Host, environment: dict[str, str], kind: Kind
) -> None:
    tree = host.catalogue.image(IMAGE).tree
    assert tree is not None
    stray = tree / "usr" / "stray"
    with _pool(host, environment):
        ready = _one_ready(host)
        stray.touch()
        try:
            host.bell.ring()
            _until(lambda: ready.name not in {found.name for found in host.guests()}, "it is ended")
        finally:
            stray.unlink()

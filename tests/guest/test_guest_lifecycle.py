"""How guests start and end: clean, apart from each other, and never longer than their owners."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from surroundings import variables

from cleanroom_base.errors import InputError
from cleanroom_base.run import CommandTimedOut
from cleanroom_base.settings import Settings
from cleanroom_images.store import ImageChanged, ImageMissing
from cleanroom_workers.guest import Guest, GuestLost, GuestWentOff
from cleanroom_workers.host import Host
from cleanroom_workers.libvirt_access import State
from cleanroom_workers.plan import Limits
from cleanroom_workers.records import Owner
from cleanroom_workers.room import DiskFull

IMAGE = "debian-12"
SMALL = Limits(processors=1, memory=512, disk=600, processes=200)

pytestmark = pytest.mark.usefixtures("traces")


@pytest.fixture
def small(host: Host) -> Iterator[Guest]:
    with host.reset(IMAGE, isolation="container", owner=Owner.current(), limits=SMALL) as guest:
        yield guest


def test_a_reset_guest_is_clean_and_says_how_it_was_made(host: Host) -> None:
    with host.reset(IMAGE, isolation="container", owner=Owner.current()) as guest:
        assert guest.digest == host.catalogue.image(IMAGE).digest
        assert (guest.isolation, guest.method, guest.network) == ("container", "overlay", "mirror")
        assert guest.reset_seconds > 0
        assert host.verify(guest.name) == []
        guest.succeed(["sh", "-c", "echo changed >> /etc/issue; rm /etc/debian_version; touch /usr/new"], timeout=10)
        assert host.verify(guest.name) == [
            "etc/debian_version was removed",
            "etc/issue was changed",
            "usr/new was added",
        ]


_INIT_SCRIPT = """\
#!/bin/sh
### BEGIN INIT INFO
# Provides: own
# Default-Start: 2 3 4 5
# Short-Description: of a package without a unit
### END INIT INFO
echo "$1" > /run/own
"""


def test_a_container_starts_without_what_it_has_no_use_for_and_with_init_scripts(host: Host) -> None:
    with host.reset(IMAGE, isolation="container", owner=Owner.current()) as guest:
        assert guest.run(["systemctl", "is-system-running", "--wait"], timeout=30).text == "running\n"
        guest.copy_in_bytes(_INIT_SCRIPT.encode(), "/etc/init.d/own", mode=0o755)
        guest.succeed(["sh", "-c", "systemctl daemon-reload && systemctl start own.service"], timeout=30)
        assert guest.succeed(["cat", "/run/own"], timeout=10).text == "start\n"
        masked = "/etc/systemd/system-generators/systemd-fstab-generator"
        assert guest.succeed(["stat", "-c", "%s %a", masked], timeout=10).text == "0 644\n"
        # A directory made for what everybody may read can be entered by everybody, and no other.
        modes = guest.succeed(["stat", "-c", "%a", "/etc/systemd/system-generators", "/root/.ssh"], timeout=10)
        assert modes.text == "755\n700\n"


def test_nothing_of_an_earlier_guest_is_visible(host: Host) -> None:
    with host.reset(IMAGE, isolation="container", owner=Owner.current()) as guest:
        guest.succeed(["touch", "/usr/bin/left-behind"], timeout=10)
    with host.reset(IMAGE, isolation="container", owner=Owner.current()) as guest:
        guest.fail(["test", "-e", "/usr/bin/left-behind"], timeout=10)


def test_guests_differ_in_everything_that_tells_machines_apart(host: Host) -> None:
    script = "hostname; cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub /sys/class/net/eth0/address"
    with ThreadPoolExecutor(2) as pool:
        guests = list(pool.map(lambda _: host.reset(IMAGE, isolation="container"), range(2)))
    try:
        first, second = (guest.succeed(["sh", "-c", script], timeout=10).text.split("\n") for guest in guests)
        assert first[0] == guests[0].name
        assert all(one != other for one, other in zip(first, second, strict=True) if one)
    finally:
        for guest in guests:
            guest.destroy()


def test_a_container_that_is_switched_off_from_inside_went_off(small: Guest) -> None:
    with pytest.raises(GuestWentOff):
        small.run(["sh", "-c", "systemctl poweroff; sleep 100"], timeout=60)
    assert small.state() is State.POWERED_OFF


def test_a_container_whose_first_process_is_killed_from_outside_went_off(small: Guest) -> None:
    assert small.record.first is not None
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(small.run, ["sleep", "100"], timeout=60)
        small.wait_until_succeeds(["pgrep", "sleep"], timeout=20)
        os.kill(small.record.first.process, signal.SIGKILL)
        with pytest.raises(GuestWentOff):
            running.result(60)


def test_a_guest_that_is_lost_is_not(small: Guest) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(small.run, ["sleep", "100"], timeout=60)
        small.wait_until_succeeds(["pgrep", "sleep"], timeout=20)
        small.destroy()
        with pytest.raises(GuestLost):
            running.result(60)


def test_killing_init_is_survived_or_told_apart(small: Guest) -> None:
    # The kernel ignores signals that a process sends to the first one of its own container.
    assert small.run(["kill", "-9", "1"], timeout=20).exit_status == 0
    small.succeed(["true"], timeout=20)


def test_processes_are_bounded(small: Guest) -> None:
    bomb = "f() { f | f & }; f"
    with pytest.raises(CommandTimedOut):
        small.run(["bash", "-c", f"{bomb}; sleep 100"], timeout=5)
    group = Path(f"/sys/fs/cgroup/pids/cleanroom-{small.name}")
    if group.is_dir():
        assert int((group / "pids.max").read_text(encoding="ascii")) == SMALL.processes
        assert int((group / "pids.current").read_text(encoding="ascii")) <= SMALL.processes


def test_the_disk_is_bounded(small: Guest) -> None:
    completed = small.run(["dd", "if=/dev/zero", "of=/usr/big", "bs=1M"], timeout=60)
    assert completed.exit_status != 0
    assert b"No space left" in completed.stderr
    size = int(small.succeed(["stat", "--format=%s", "/usr/big"], timeout=10).text)
    assert size < SMALL.disk << 20


def test_memory_is_bounded(small: Guest) -> None:
    completed = small.run(["perl", "-e", "my $x = 'a' x (1 << 30); print length $x"], timeout=60)
    assert completed.exit_status != 0


def test_root_in_a_container_is_nobody_on_the_host(small: Guest) -> None:
    inside = small.succeed(["cat", "/proc/self/uid_map"], timeout=10).text.split()
    assert inside[0] == "0"
    assert int(inside[1]) > 65536
    small.fail(["mknod", "/tmp/disk", "b", "254", "0"], timeout=10)
    small.fail(["sh", "-c", "echo 1 > /proc/sys/kernel/sysrq"], timeout=10)


def test_an_image_that_is_unknown_or_not_built(host: Host, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        host.reset("no-such-image")
    folder = tmp_path / "guest_images" / "never-built"
    folder.mkdir(parents=True)
    (folder / "image.toml").write_text('distribution = "debian"\nsuite = "bookworm"\n', encoding="utf-8")
    with pytest.raises(ImageMissing, match="never-built"):
        Host.open(replace(settings, site=tmp_path)).reset("never-built")


def test_an_image_that_was_changed_starts_no_guest(host: Host) -> None:
    tree = host.catalogue.image(IMAGE).tree
    assert tree is not None
    stray = tree / "usr" / "stray"
    stray.touch()
    try:
        with pytest.raises(ImageChanged, match="usr/stray was added"):
            host.reset(IMAGE, isolation="container")
    finally:
        stray.unlink()
    host.reset(IMAGE, isolation="container").destroy()


def test_no_guest_starts_on_a_full_disk(settings: Settings) -> None:
    values = {**settings.values, "storage.minimum_free": 1 << 29}
    with pytest.raises(DiskFull):
        Host.open(replace(settings, values=values)).reset(IMAGE)


_OWNER = """
import sys, time
from cleanroom_base.settings import load
from cleanroom_workers.host import Host
from cleanroom_workers.records import Owner
host = Host.open(load())
guest = host.reset("debian-12", isolation="container", owner=Owner.current())
print(guest.name, flush=True)
time.sleep(100)
"""


def _start_owner(environment: dict[str, str], stdout: int) -> subprocess.Popen[bytes]:
    given = {**variables(), **environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", _OWNER], env=given, stdout=stdout)


def _guest_names(settings: Settings) -> set[str]:
    return {path.name for path in (settings.state / "guests").iterdir()}


def test_no_guest_outlives_an_owner_that_was_killed(host: Host, environment: dict[str, str]) -> None:
    with _start_owner(environment, subprocess.PIPE) as owner:
        assert owner.stdout is not None
        name = owner.stdout.readline().decode().strip()
        assert host.state(name) is State.RUNNING
        assert name not in host.reap()
        owner.send_signal(signal.SIGKILL)
    assert host.reap() == [name]
    assert host.state(name) is State.DESTROYED


def test_a_half_made_guest_is_reaped(host: Host, settings: Settings, environment: dict[str, str]) -> None:
    before = _guest_names(settings)
    with _start_owner(environment, subprocess.DEVNULL) as owner:
        while not (made := _guest_names(settings) - before):
            assert owner.poll() is None
        owner.send_signal(signal.SIGKILL)
    assert set(host.reap()) == made
    assert host.reap() == []


def test_another_process_can_go_on_with_a_guest(host: Host, settings: Settings) -> None:
    with host.reset(IMAGE, isolation="container") as guest:
        other = Host.open(settings)
        assert guest.name in {record.name for record in other.guests()}
        assert other.guest(guest.name).run(["echo", "here"], timeout=10).text == "here\n"
        other.close()
        assert host.reap() == []
    with pytest.raises(InputError):
        host.guest(guest.name)
    host.destroy(guest.name)


def test_a_daemon_that_was_killed_is_replaced_and_its_guests_end(host: Host, settings: Settings) -> None:
    name = host.reset(IMAGE, isolation="container", owner=Owner.current()).name
    daemon = settings.runtime / "libvirt/libvirtd.pid"
    if daemon.is_file():
        os.kill(int(daemon.read_text(encoding="ascii")), signal.SIGKILL)
    other = Host(settings)
    assert other.reap() == []
    assert other.guest(name).run(["echo", "here"], timeout=20).text == "here\n"
    other.destroy(name)
    assert other.state(name) is State.DESTROYED
    other.close()

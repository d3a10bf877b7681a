"""Machines that are restored from a snapshot: each another one than its template and than all others, and clean."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from surroundings import variables
from traces import of_guests, of_snapshots

from cleanroom_base.settings import Settings
from cleanroom_images.manifest import file_digest
from cleanroom_workers import sealed_memory
from cleanroom_workers.guest import Guest
from cleanroom_workers.host import Host
from cleanroom_workers.plan import Limits
from cleanroom_workers.records import Owner

IMAGE = "debian-12"
# As in the other tests of emulated guests, so that they share one snapshot.
LIMITS = Limits(processors=2, memory=1024, disk=3072, processes=1000)
_WAIT = 60.0


def _reset(host: Host, told: list[str] | None = None) -> Guest:
    observer = None if told is None else told.append
    return host.reset(IMAGE, isolation="emulated", owner=Owner.current(), limits=LIMITS, observer=observer)


@pytest.fixture(scope="module")
def pair(host: Host) -> Iterator[list[Guest]]:
    """Two guests side by side, from one snapshot."""
    with ThreadPoolExecutor(2) as pool, ExitStack() as stack:
        yield [stack.enter_context(guest) for guest in pool.map(lambda _: _reset(host), range(2))]


@pytest.fixture
def snapshot(settings: Settings, pair: list[Guest]) -> Path:
    """The directory of the snapshot that they come from."""
    name = (settings.state / "guests" / pair[0].name / "snapshot").read_text(encoding="ascii")
    return settings.state / "snapshots" / name


_WHO = r"""
cat /etc/machine-id
hostname
cat /etc/ssh/ssh_host_ed25519_key.pub
cat /sys/class/net/eth0/address
ip -o -4 address show dev eth0 | tr -s ' ' | cut -d ' ' -f 4
head -c 16 /dev/urandom | od -An -tx1
perl -e '$b = "\0" x 16; syscall 318, $b, 16, 0; print unpack("H*", $b), "\n"'
"""


def test_two_guests_of_one_snapshot_share_nothing_that_tells_machines_apart(pair: list[Guest]) -> None:
    assert [guest.method for guest in pair] == ["snapshot", "snapshot"]
    first, second = (guest.succeed(["sh", "-c", _WHO], timeout=60).text.splitlines() for guest in pair)
    assert len(first) == len(second) == 7
    assert not set(first) & set(second)
    for guest, found in zip(pair, (first, second), strict=True):
        assert found[1] == guest.name
        assert found[3] == guest.record.mac
        assert found[4].split("/")[0] == guest.address


def test_the_clock_is_the_hosts(pair: list[Guest]) -> None:
    for guest in pair:
        before = time.time()
        shown = float(guest.succeed(["date", "+%s.%N"], timeout=60).text)
        assert before - 2 < shown < time.time() + 2


def test_nothing_is_left_of_what_made_it_another_one(pair: list[Guest]) -> None:
    guest = pair[0]
    guest.fail(["pgrep", "perl"], timeout=60)
    found = guest.run(["sh", "-c", "ls /run/ssh.default; find /etc -name '*.new' -o -type p"], timeout=60).text
    assert found == ""
    guest.fail(["grep", "--", "-r", "/etc/default/ssh"], timeout=60)


def test_it_has_the_files_of_its_image(host: Host, pair: list[Guest]) -> None:
    assert host.verify(pair[1].name) == []


def test_eight_guests_leave_the_template_as_it_was(host: Host, settings: Settings, snapshot: Path) -> None:
    note = settings.runtime / "snapshots" / f"{snapshot.name}.holder"
    memory = Path(f"/proc/{json.loads(note.read_text(encoding='utf-8'))['process']}/fd/0")

    def state() -> list[str]:
        return [sealed_memory.checksum(memory), *(file_digest(snapshot / part) for part in ("disk.qcow2", "state"))]

    def use(_: int) -> str:
        with _reset(host) as guest:
            guest.succeed(["sh", "-c", "head -c 30000000 /dev/urandom > /dev/shm/x; echo x > /etc/x; sync"], timeout=60)
            return guest.method

    before = state()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(use, range(8))) == {"snapshot"}
    assert state() == before


def test_a_guest_that_cannot_be_restored_is_booted_and_says_so(host: Host, snapshot: Path) -> None:
    seal, state = snapshot.with_suffix(".json"), snapshot / "state"
    kept = seal.read_bytes(), state.read_bytes()
    try:
        state.unlink()
        state.write_bytes(b"no state")
        content = json.loads(kept[0])
        content["checksums"]["state"] = file_digest(state)
        seal.write_text(json.dumps(content), encoding="utf-8")
        told: list[str] = []
        with _reset(host, told) as guest:
            assert guest.method == "cold boot"
            assert any("cannot be restored" in line for line in told)
    finally:
        state.write_bytes(kept[1])
        seal.write_bytes(kept[0])


_OWNER = """
import sys, time
from cleanroom_base.settings import load
from cleanroom_workers.host import Host
from cleanroom_workers.plan import Limits
from cleanroom_workers.records import Owner
host = Host.open(load())
host.reset("debian-12", isolation="emulated", owner=Owner.current(), limits=Limits(2, 1024, 3072, 1000))
"""


def _everything(settings: Settings) -> dict[str, list[str]]:
    return {**of_guests(settings), **of_snapshots(settings)}


def _kill_when(settings: Settings, environment: dict[str, str], pattern: str) -> None:
    """Have another process reset a guest, and kill it when a file of that pattern is there that was not before."""
    before = set(settings.state.glob(pattern))
    given = {**variables(), **environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", _OWNER], env=given) as owner:
        deadline = time.monotonic() + _WAIT
        while not set(settings.state.glob(pattern)) - before:
            assert owner.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        owner.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("pattern", ["guests/*/snapshot", "guests/*/disk.qcow2", "guests/*/port"])
@pytest.mark.usefixtures("pair")
def test_nothing_is_left_of_a_restoration_that_was_killed(
    host: Host, settings: Settings, environment: dict[str, str], pattern: str
) -> None:
    before = _everything(settings)
    _kill_when(settings, environment, pattern)
    host.reap()
    assert _everything(settings) == before


def test_a_damaged_snapshot_is_made_anew_and_nothing_is_left_when_that_is_killed(
    host: Host, settings: Settings, environment: dict[str, str], snapshot: Path, tmp_path: Path
) -> None:
    before = _everything(settings)
    kept = tmp_path / "kept"
    shutil.copytree(snapshot, kept)
    seal = snapshot.with_suffix(".json").read_bytes()
    with (snapshot / "disk.qcow2").open("r+b") as disk:
        disk.seek(-1, os.SEEK_END)
        disk.write(b"x")
    try:
        # The guest that the new one is made of runs when there is a port to it.
        _kill_when(settings, environment, "snapshots/.new-*/memory")
        host.reap()
        after = _everything(settings)
        assert not any(snapshot.name in path for path in after["snapshots"])
        assert of_guests(settings) == {kind: before[kind] for kind in of_guests(settings)}
    finally:
        shutil.copytree(kept, snapshot, dirs_exist_ok=True)
        snapshot.with_suffix(".json").write_bytes(seal)


# With less patience than a restored machine is otherwise given.
_IMPATIENT = """
import sys
from cleanroom_base.settings import load
from cleanroom_workers import isolations
from cleanroom_workers.host import Host
from cleanroom_workers.machine import Machine
from cleanroom_workers.plan import Limits
from cleanroom_workers.records import Owner
isolations.ISOLATIONS["emulated"] = Machine("qemu", start_timeout=30.0)
host = Host.open(load())
tell = lambda line: print(line, flush=True)
host.reset("debian-12", isolation="emulated", owner=Owner.current(), limits=Limits(2, 1024, 3072, 1000), observer=tell)
"""


@pytest.fixture
def unreachable(host: Host) -> Iterator[None]:
    """Nothing that is sent to a guest's SSH server arrives."""
    drop = f"ip daddr {host.addresses.subnet} tcp dport 22 drop"
    table = f"table inet test-{host.addresses.bridge}"
    chain = "\n".join([f"{table} {{", "chain out {", "type filter hook output priority 0;", drop, "}", "}", ""])
    subprocess.run(["nft", "-f", "-"], input=chain, text=True, check=True)
    yield
    subprocess.run(["nft", "-f", "-"], input=f"delete {table}\n", text=True, check=True)


@pytest.mark.usefixtures("unreachable")
def test_a_restored_guest_that_does_not_answer_is_booted_and_its_snapshot_refused(
    host: Host, environment: dict[str, str], snapshot: Path
) -> None:
    refusal = snapshot.with_suffix(".refused")
    given = {**variables(), **environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _IMPATIENT]
    told = []
    try:
        with subprocess.Popen(command, env=given, stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout is not None
            for line in owner.stdout:
                told.append(line.split(" ", 1)[1].split(":")[0].strip())
                if "booted" in line:
                    owner.send_signal(signal.SIGKILL)
        assert told[-2:] == ["runs, restored from a snapshot", "cannot be restored from a snapshot and is booted"]
        assert "did not answer" in json.loads(refusal.read_text(encoding="utf-8"))["why"]
    finally:
        refusal.unlink(missing_ok=True)
    host.reap()

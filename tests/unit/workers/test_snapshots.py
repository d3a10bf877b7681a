"""Snapshots of machines: what they depend on, how a restored machine is described, and what becomes of old ones."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from xml.etree import ElementTree

import plans
import pytest
from plans import LIMITS

from cleanroom_base.settings import load
from cleanroom_workers import renewal, sealed_memory
from cleanroom_workers.machine import Machine, port
from cleanroom_workers.plan import Limits, Plan, Resumption
from cleanroom_workers.snapshot_store import PARTS, Key, SnapshotStore, beyond
from cleanroom_workers.snapshots import key_of

QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plans.plan(tmp_path)


def _arguments(plan: Plan) -> list[str]:
    domain = ElementTree.fromstring(Machine("qemu", start_timeout=1).xml(plan))
    return [argument.attrib["value"] for argument in domain.iterfind(f"{QEMU}commandline/{QEMU}arg")]


def _devices(plan: Plan) -> list[str]:
    domain = ElementTree.fromstring(Machine("qemu", start_timeout=1).xml(plan))
    return [device.tag for device in domain.iterfind("devices/*")]


def test_every_part_of_a_key_makes_another_snapshot(plan: Plan) -> None:
    key = key_of(Machine("qemu", start_timeout=1), plan.image, LIMITS)
    assert key.name == key_of(Machine("qemu", start_timeout=9), plan.image, replace(LIMITS)).name
    others = [replace(key, **{field.name: "other"}) for field in fields(Key) if field.name != "limits"]
    others += [replace(key, limits=replace(LIMITS, **{field.name: 77})) for field in fields(Limits)]
    assert len({one.name for one in [key, *others]}) == len(others) + 1


def test_kvm_and_emulation_never_share_a_snapshot(plan: Plan) -> None:
    emulated, kvm = (key_of(Machine(domain, start_timeout=1), plan.image, LIMITS) for domain in ("qemu", "kvm"))
    assert emulated.accelerator != kvm.accelerator
    assert emulated.processor != kvm.processor


def test_a_template_writes_its_memory_and_a_restored_machine_copies(plan: Plan, tmp_path: Path) -> None:
    assert _arguments(plan) == []
    template = _arguments(replace(plan, template=tmp_path / "a,b"))
    assert f"mem-path={tmp_path}/a,,b/memory,share=on" in template[1]
    assert "-incoming" not in template
    restored = _arguments(replace(plan, resumption=Resumption(tmp_path / "disk.qcow2", Path("/proc/7/fd/0"))))
    assert "size=1024M,mem-path=/proc/7/fd/0,share=off" in restored[1]
    assert restored[-2:] == ["-incoming", "defer"]


def test_a_restored_machine_has_the_devices_of_its_template_and_boots_nothing(plan: Plan, tmp_path: Path) -> None:
    resumed = replace(plan, resumption=Resumption(tmp_path / "disk.qcow2", tmp_path / "memory"))
    assert _devices(resumed) == _devices(plan) == _devices(replace(plan, template=tmp_path))
    assert "kernel" not in Machine("qemu", start_timeout=1).xml(resumed)


def test_a_machine_whose_port_would_have_too_long_a_path_has_none(plan: Plan, tmp_path: Path) -> None:
    far = replace(plan, home=tmp_path / ("x" * 100))
    assert port(plan) is not None
    assert port(far) is None
    assert "channel" not in _devices(far)


def test_a_restored_machine_is_told_the_time_first_and_where_it_is(plan: Plan) -> None:
    lines = renewal.message(plan, 1_234_500_000_000).split("\n")
    assert lines[0] == "clock 1234 500000000"
    assert lines[1] == "random 0102"
    assert f"file 600 /etc/key {plan.files['etc/key'][1].hex()}" in lines
    assert lines[-3] == "network 525400000001 10.0.0.9 255.255.240.0 10.0.15.255 10.0.0.1"
    assert lines[-2:] == ["end", ""]


def test_the_program_that_waits_is_one() -> None:
    checked = subprocess.run(
        ["perl", "-c", Path(renewal.__file__).with_suffix(".pl")], capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_a_sealed_memory_can_be_copied_and_not_be_changed(tmp_path: Path) -> None:
    file, note = tmp_path / "memory", tmp_path / "note"
    with file.open("wb") as memory:
        memory.truncate(8 << 20)
        memory.seek((5 << 20) + 17)
        memory.write(b"content")
    sealed = sealed_memory.checksum(file)
    path = sealed_memory.provide(file, sealed, note, (os.getuid(), os.getgid()))
    try:
        descriptor = os.open(path, os.O_RDWR)
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 0)
        with pytest.raises(PermissionError):
            mmap.mmap(descriptor, 0, mmap.MAP_SHARED)
        with mmap.mmap(descriptor, 0, mmap.MAP_PRIVATE) as copy:
            copy[:1] = b"x"
        os.close(descriptor)
        assert path.read_bytes() == file.read_bytes()
        assert sealed_memory.provide(file, sealed, note, (os.getuid(), os.getgid())) == path
    finally:
        sealed_memory.withdraw(note)
    assert not note.exists()
    with file.open("r+b") as memory:
        memory.seek(5 << 20)
        memory.write(b"x")
    with pytest.raises(sealed_memory.MemoryChanged):
        sealed_memory.provide(file, sealed, note, (os.getuid(), os.getgid()))


def test_holes_and_zeros_are_the_same_memory(tmp_path: Path) -> None:
    (tmp_path / "written").write_bytes(bytes(1 << 20) + b"x" + bytes((1 << 20) - 1))
    with (tmp_path / "holes").open("wb") as memory:
        memory.truncate(2 << 20)
        memory.seek(1 << 20)
        memory.write(b"x")
    assert sealed_memory.checksum(tmp_path / "written") == sealed_memory.checksum(tmp_path / "holes")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SnapshotStore]:
    """A store in which one snapshot at most may be that no guest uses."""
    settings = load({"CLEANROOM_STATE": str(tmp_path / "state"), "CLEANROOM_SITE": "/nonexistent"})
    yield SnapshotStore(settings, disk=0.0)
    shutil.rmtree(settings.runtime, ignore_errors=True)


@pytest.fixture
def key(plan: Plan) -> Key:
    return key_of(Machine("qemu", start_timeout=1), plan.image, LIMITS)


def _snapshot(store: SnapshotStore, key: Key, *, guest: str = "guest-0", age: float = 0) -> Path:
    """A snapshot that was last used by a guest of that name, so many seconds ago."""
    home = store.directory.parent / "guests" / guest
    home.mkdir(parents=True, exist_ok=True)
    with store.claimed(key, home):
        with store.making(key) as place:
            for part in PARTS:
                (place / part).write_bytes(b"content")
        assert store.sound(key)
    seal = store.directory / f"{key.name}.json"
    os.utime(seal, (time.time() - age,) * 2)
    return store.directory / key.name


def _left(store: SnapshotStore) -> set[str]:
    return {path.name for path in store.directory.iterdir()}


def _files(*snapshots: Path) -> set[str]:
    return {name for snapshot in snapshots for name in (snapshot.name, f"{snapshot.name}.json")}


def test_what_is_out_of_date_half_made_or_unreadable_goes(store: SnapshotStore, key: Key) -> None:
    other = replace(key, digest="older"), replace(key, digest="used")
    _snapshot(store, other[0])
    current = _snapshot(store, key)
    used = _snapshot(store, other[1], guest="guest-1")
    (store.directory / f".new-{key.name}").mkdir()
    unsealed = store.directory / ("f" * 16)
    unsealed.mkdir()
    unsealed.with_suffix(".new").touch()
    (store.directory / f"{'e' * 16}.refused").write_text("not what was written", encoding="utf-8")
    store.tidy(lambda one: one not in other)
    assert _left(store) == _files(current, used)


def test_what_was_not_used_for_the_longest_time_goes_first(store: SnapshotStore, key: Key) -> None:
    keys = [replace(key, limits=replace(LIMITS, memory=number)) for number in range(4)]
    # The guest of the second one is still there; that of all others has gone on to use another one.
    places = [
        _snapshot(store, key, guest=f"guest-{number == 1:d}", age=age)
        for number, (key, age) in enumerate(zip(keys, (30, 40, 20, 10), strict=True))
    ]
    (store.directory.parent / "guests/guest-0/snapshot").unlink()
    store.tidy(lambda _: True)
    assert _left(store) == _files(places[1], places[3])
    newer = _snapshot(store, keys[0], guest="guest-2", age=5)
    (store.directory.parent / "guests/guest-2/snapshot").unlink()
    assert store.sound(keys[3])  # that is a use
    store.tidy(lambda _: True)
    assert not newer.exists()
    assert _left(store) == _files(places[1], places[3])


def test_as_many_stay_as_there_is_room_for() -> None:
    sizes = {"new": 60, "small": 10, "large": 50, "old": 20}
    assert beyond(list(sizes), sizes, 200) == []
    assert beyond(list(sizes), sizes, 100) == ["large"]
    assert beyond(list(sizes), sizes, 5) == ["small", "large", "old"]
    assert beyond([], {}, 5) == []


def test_a_copy_in_memory_is_let_go_of_and_the_snapshot_stays(tmp_path: Path, key: Key) -> None:
    settings = load({"CLEANROOM_STATE": str(tmp_path / "state"), "CLEANROOM_SITE": "/nonexistent"})
    store = SnapshotStore(settings, memory=0.0)
    keys = [replace(key, limits=replace(LIMITS, memory=number)) for number in range(3)]
    # One guest is there, of the first snapshot.
    places = [_snapshot(store, one, guest=f"guest-{number}", age=-number) for number, one in enumerate(keys)]
    for number in (1, 2):
        (settings.state / f"guests/guest-{number}/snapshot").unlink()
    for one in keys:
        assert store.memory(one).read_bytes() == b"content"
    try:
        store.tidy(lambda _: True)
        held = [(settings.runtime / f"snapshots/{one.name}.holder").exists() for one in keys]
        assert held == [True, False, True]
        assert _left(store) == _files(*places)
    finally:
        store.stop()
        shutil.rmtree(settings.runtime)


def test_a_refusal_is_forgotten_after_a_day_and_with_what_it_depends_on(store: SnapshotStore, key: Key) -> None:
    old, other = replace(key, emulator="old"), replace(key, emulator="other")
    for one in (key, old, other):
        store.refuse(one, "it has no perl")
        assert store.refused(one) == "it has no perl"
    file = store.directory / f"{old.name}.refused"
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, "at": content["at"] - 86401}), encoding="utf-8")
    assert store.refused(old) is None
    store.tidy(lambda one: one != other)
    assert _left(store) == {f"{key.name}.refused"}


def test_a_snapshot_that_was_refused_goes(store: SnapshotStore, key: Key) -> None:
    _snapshot(store, key)
    (store.directory.parent / "guests/guest-0/snapshot").unlink()
    store.refuse(key, "its guest did not answer")
    store.tidy(lambda _: True)
    assert _left(store) == {f"{key.name}.refused"}

"""Snapshots of booted, idle, clean machines: a guest goes on from one instead of booting.

    STATE/snapshots/KEY/         disk.qcow2 (on the image's disk) memory state
    STATE/snapshots/KEY.json     the seal: what it was made of, checksums; written last
    STATE/guests/GUEST/snapshot  holds the KEY that a guest goes on from

The key names everything that a snapshot depends on, so one that is out of date is not used but made anew. It is made
from a guest that boots as any other, gets an identity to be thrown away, and is stopped when it has come to rest.
Memory is left out of the saved state: it is a file, of which every machine maps a sealed copy and copies what it
changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cleanroom_base.errors import InfrastructureError, TimedOut
from cleanroom_base.settings import Settings
from cleanroom_images.manifest import file_digest
from cleanroom_images.store import Image
from cleanroom_workers import isolations, libvirt_access, renewal, sealed_memory
from cleanroom_workers.daemon import emulator_account
from cleanroom_workers.guest import Guest
from cleanroom_workers.libvirt_access import Libvirt
from cleanroom_workers.locks import attempted, locked
from cleanroom_workers.machine import BOOT_OPTIONS, Machine, port
from cleanroom_workers.plan import Limits, Plan, Resumption
from cleanroom_workers.platforms import Platform, platform

METHOD = "snapshot"
Observer = Callable[[str], None]
# Boots the guest that a snapshot is made of: its isolation, the plan it is to be like, the directory for its files.
Boot = Callable[[str, Plan, Path, Observer], Guest]

_LOCK_TIMEOUT = 60.0
_MAKE_TIMEOUT = 600.0
_SETTLE_TIMEOUT = 240.0
_SAVE_TIMEOUT = 60.0
_LOAD_TIMEOUT = 30.0
_RENEW_TIMEOUT = 20.0
_PAUSE = 0.01
# A machine is idle when it used little of a processor (in seconds) in each of so many seconds.
_LITTLE, _CALM = 0.08, 3
_PARTS = ("disk.qcow2", "memory", "state")


class NoSnapshot(InfrastructureError):
    """No snapshot can be taken of an image."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a snapshot depends on. A guest with other limits needs another one: it has booted with them."""

    image: str
    digest: str
    architecture: str
    emulator: str
    machine: str
    processor: str
    accelerator: str
    limits: Limits
    preparation: str

    @property
    def name(self) -> str:
        """A short name that only this key has."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


class Snapshots:
    """The snapshots of one installation."""

    def __init__(self, settings: Settings, boot: Boot) -> None:
        self._directory = settings.state / "snapshots"
        self._guests = settings.state / "guests"
        self._runtime = settings.runtime / "snapshots"
        self._wanted = settings.text("worker.snapshots") == "yes"
        self._boot = boot

    def start(self, libvirt: Libvirt, isolation: str, plan: Plan, tell: Observer) -> bool:
        """Start a guest, from a snapshot where that is possible; returns whether it was.

        A snapshot that is not there is made, which takes as long as a cold boot and some seconds.
        """
        way = isolations.named(isolation)
        if isinstance(way, Machine) and plan.template is None and self._wanted:
            try:
                self._restore(libvirt, way, plan, self._claimed(libvirt, isolation, way, plan, tell), tell)
            except InfrastructureError as error:
                tell(f"{plan.name} cannot be restored from a snapshot and is booted: {error.message}")
                way.end(libvirt, plan.name)
            else:
                return True
        way.prepare(plan)
        libvirt.start(way.xml(plan))
        way.limit(libvirt, plan)
        return False

    def tidy(self, digest: Callable[[str], str | None]) -> None:
        """Remove what was left half made, and the snapshots that no new guest would use and no guest uses.

        `digest` tells that of an image as it is now.
        """
        if not self._directory.is_dir():
            return
        for entry in self._directory.iterdir():
            name = entry.name.removeprefix(".new-").split(".")[0]
            if entry.suffix in (".json", ".refused") or (entry.name == name and self._seal(name).exists()):
                continue
            with attempted(self._lock(name)) as held:
                if held:
                    _remove(entry)
        with locked(self._lock("all"), timeout=_LOCK_TIMEOUT):
            used = self._used()
            for seal in self._directory.glob("*.json"):
                if seal.stem not in used and not _current(_sealed_key(seal), digest):
                    self._drop(seal.stem)

    def stop(self) -> None:
        """Let go of everything in memory."""
        for note in self._runtime.glob("*.holder"):
            sealed_memory.withdraw(note)

    def _claimed(self, libvirt: Libvirt, isolation: str, way: Machine, plan: Plan, tell: Observer) -> Path:
        """The directory of the snapshot for a guest, made where there is none, and held for that guest."""
        _port(plan)
        key = key_of(way, plan.image, plan.limits)
        refusal = self._directory / f"{key.name}.refused"
        if refusal.exists():
            raise NoSnapshot(refusal.read_text(encoding="utf-8"))
        (plan.home / "snapshot").write_text(key.name, encoding="ascii")
        with locked(self._lock(key.name), timeout=_MAKE_TIMEOUT):
            if not self._sound(key):
                try:
                    self._make(libvirt, isolation, plan, key, tell)
                except NoSnapshot as error:
                    refusal.write_text(error.message, encoding="utf-8")
                    raise
        return self._directory / key.name

    def _restore(self, libvirt: Libvirt, way: Machine, plan: Plan, snapshot: Path, tell: Observer) -> None:
        """Start a guest from a snapshot and give it its identity. Source: QEMU's QMP reference."""
        plan = replace(plan, resumption=Resumption(snapshot / "disk.qcow2", self._memory(snapshot)))
        way.prepare(plan)
        libvirt.start(way.xml(plan), paused=True)
        _ignore_memory(libvirt, plan.name)
        # Connected as it was when it was saved: the waiting shell must not see its input end.
        with renewal.Port(_port(plan), _RENEW_TIMEOUT) as connection:
            with (snapshot / "state").open("rb") as state:
                libvirt.command(plan.name, "getfd", file=state.fileno(), fdname="state")
                libvirt.command(plan.name, "migrate-incoming", uri="fd:state")
            _until(lambda: libvirt.command(plan.name, "query-status")["status"] != "inmigrate", _LOAD_TIMEOUT)
            libvirt.resume(plan.name)
            tell(f"{plan.name} runs, restored from a snapshot")
            connection.renew(plan)

    def _memory(self, snapshot: Path) -> Path:
        sealed = json.loads(self._seal(snapshot.name).read_text(encoding="utf-8"))["checksums"]["memory"]
        with locked(self._lock(snapshot.name), timeout=_LOCK_TIMEOUT):
            return sealed_memory.provide(snapshot / "memory", sealed, self._note(snapshot.name), emulator_account())

    def _make(self, libvirt: Libvirt, isolation: str, plan: Plan, key: Key, tell: Observer) -> None:
        """Make a snapshot. The caller has locked it."""
        tell(f"booting {plan.image.name} once, for a snapshot")
        self._drop(key.name)
        half = self._directory / f".new-{key.name}"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        half.chmod(0o711)
        try:
            with self._boot(isolation, plan, half, tell) as template:
                if template.digest != key.digest:
                    raise InfrastructureError(f"the image {key.image} was built anew just now")
                _take(libvirt, template, plan, half)
            checksums = {part: _settled(half / part) for part in _PARTS}
            half.rename(self._directory / key.name)
            self._write_seal(key, checksums)
        finally:
            shutil.rmtree(half, ignore_errors=True)

    def _sound(self, key: Key) -> bool:
        """Whether a snapshot is there, and is what was sealed; see `Store.check` for how that is seen at once."""
        try:
            seal = json.loads(self._seal(key.name).read_text(encoding="utf-8"))
            checksums = {part: str(seal["checksums"][part]) for part in _PARTS}
            places = {part: self._directory / key.name / part for part in _PARTS}
            if any(place.stat().st_ctime > float(seal["sealed_at"]) for place in places.values()):
                if {part: _checksum(place) for part, place in places.items()} != checksums:
                    return False
                self._write_seal(key, checksums)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return True

    def _write_seal(self, key: Key, checksums: dict[str, str]) -> None:
        content = {"key": asdict(key), "checksums": checksums, "sealed_at": time.time()}
        file = self._seal(key.name)
        temporary = file.with_suffix(".new")
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
        temporary.replace(file)

    def _drop(self, name: str) -> None:
        self._seal(name).unlink(missing_ok=True)
        sealed_memory.withdraw(self._note(name))
        shutil.rmtree(self._directory / name, ignore_errors=True)

    def _used(self) -> set[str]:
        found = set()
        for note in self._guests.glob("*/snapshot"):
            with contextlib.suppress(OSError):
                found.add(note.read_text(encoding="ascii"))
        return found

    def _seal(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def _note(self, name: str) -> Path:
        return self._runtime / f"{name}.holder"

    def _lock(self, name: str) -> Path:
        return self._runtime / f"{name}.lock"


def _remove(entry: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def emulator_version(kind: Platform) -> str:
    """What tells one build of the emulator, and of what describes machines to it, from another."""
    program = shutil.which(kind.emulator)
    if program is None:
        raise NoSnapshot(f"{kind.emulator} is not installed")
    status = Path(program).stat()
    return f"qemu {status.st_size} {status.st_mtime_ns} libvirt {libvirt_access.version()}"


def key_of(way: Machine, image: Image, limits: Limits) -> Key:
    """The key of the snapshot for guests of an image with such limits. Raises InfrastructureError."""
    kind = platform(image.architecture)
    return Key(
        image=image.name,
        digest=image.digest,
        architecture=image.architecture,
        emulator=emulator_version(kind),
        machine=kind.machine,
        processor=kind.processor or "" if way.domain == "qemu" else _host_processor(),
        accelerator=way.domain,
        limits=limits,
        preparation=hashlib.sha256("\n".join([renewal.PREPARATION, *BOOT_OPTIONS]).encode()).hexdigest(),
    )


def _host_processor() -> str:
    """The processor that a machine sees which is not emulated: model, stepping, microcode and flags as the kernel
    names them."""
    first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    told = ("vendor_id", "model name", "stepping", "microcode", "flags")
    return " ".join(line for line in first if line.startswith(told))


def _sealed_key(seal: Path) -> Key | None:
    try:
        content = json.loads(seal.read_text(encoding="utf-8"))["key"]
        return Key(**{**content, "limits": Limits(**content["limits"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _current(key: Key | None, digest: Callable[[str], str | None]) -> bool:
    """Whether a guest that starts now could use a snapshot with that key."""
    if key is None or key.digest != digest(key.image):
        return False
    with contextlib.suppress(InfrastructureError):
        return key.emulator == emulator_version(platform(key.architecture))
    return False


def _take(libvirt: Libvirt, template: Guest, plan: Plan, place: Path) -> None:
    """Bring a booted guest to rest and save what is not memory. Source: QEMU's QMP reference."""
    settled = template.run(renewal.settling(plan.image.architecture), timeout=_SETTLE_TIMEOUT)
    if settled.exit_status == 3:
        raise NoSnapshot(settled.stdout.decode(errors="replace").strip()[:200])
    if settled.exit_status != 0:
        raise InfrastructureError(f"the template did not settle: {settled.stderr[-200:]!r}")
    template.disconnect()
    listening = _port(replace(plan, home=plan.home.with_name(template.name)))
    with renewal.Port(listening, _SETTLE_TIMEOUT) as connection:
        connection.rest()
        _await_idleness(libvirt, template.name)
        libvirt.suspend(template.name)
        _ignore_memory(libvirt, template.name)
        with (place / "state").open("wb") as state:
            libvirt.command(template.name, "getfd", file=state.fileno(), fdname="state")
            libvirt.command(template.name, "migrate", uri="fd:state")
        _until(lambda: _saved(libvirt, template.name), _SAVE_TIMEOUT)


def _await_idleness(libvirt: Libvirt, name: str) -> None:
    """Wait until a machine's processors had almost nothing to do for some seconds."""
    deadline = time.monotonic() + _SETTLE_TIMEOUT
    calm, before = 0, libvirt.processor_seconds(name)
    while calm < _CALM and time.monotonic() < deadline:
        time.sleep(1)
        used = libvirt.processor_seconds(name)
        calm = calm + 1 if used - before < _LITTLE else 0
        before = used


def _saved(libvirt: Libvirt, name: str) -> bool:
    status = libvirt.command(name, "query-migrate").get("status")
    if status == "failed":
        raise InfrastructureError("QEMU could not save the template's state")
    return status == "completed"


def _port(plan: Plan) -> Path:
    place = port(plan)
    if place is None:
        raise NoSnapshot("the path of its port would be too long")
    return place


def _ignore_memory(libvirt: Libvirt, name: str) -> None:
    """Leave memory in files out of what is saved and loaded."""
    capability = {"capability": "x-ignore-shared", "state": True}
    libvirt.command(name, "migrate-set-capabilities", capabilities=[capability])


def _settled(part: Path) -> str:
    """Make a part of a snapshot lasting and unchangeable for the emulator; returns its checksum."""
    os.chown(part, 0, 0)
    part.chmod(0o444)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    return _checksum(part)


def _checksum(part: Path) -> str:
    return sealed_memory.checksum(part) if part.name == "memory" else file_digest(part)


def _until(condition: Callable[[], bool], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimedOut(f"QEMU was not done within {timeout:.0f} s")
        time.sleep(_PAUSE)

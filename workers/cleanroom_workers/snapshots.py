"""Snapshots of booted, idle, clean machines: a guest goes on from one instead of booting.

The key names everything that a snapshot depends on, so one that is out of date is not used but made anew. It is made
from a guest that boots as any other, gets an identity to be thrown away, and is stopped when it has come to rest.
Memory is left out of the saved state: it is a file, of which every machine maps a sealed copy and copies what it
changes. What the files are is told in `snapshot_store`.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cleanroom_base.errors import InfrastructureError, TimedOut
from cleanroom_base.settings import Settings
from cleanroom_images.store import Image
from cleanroom_workers import isolations, libvirt_access, renewal
from cleanroom_workers.guest import Guest
from cleanroom_workers.libvirt_access import Libvirt, State
from cleanroom_workers.machine import BOOT_OPTIONS, Machine, port
from cleanroom_workers.plan import Limits, Plan, Resumption
from cleanroom_workers.platforms import Platform, platform
from cleanroom_workers.snapshot_store import Key, SnapshotStore

METHOD = "snapshot"
Observer = Callable[[str], None]
# Boots the guest that a snapshot is made of: its isolation, the plan it is to be like, the directory for its files.
Boot = Callable[[str, Plan, Path, Observer], Guest]
# Waits until a guest answers, at most so many seconds; raises InfrastructureError when it does not.
Wait = Callable[[float], None]

_SETTLE_TIMEOUT = 240.0
_SAVE_TIMEOUT = 60.0
_LOAD_TIMEOUT = 30.0
_RENEW_TIMEOUT = 20.0
_PAUSE = 0.01
# A machine is idle when it used little of a processor (in seconds) in each of so many seconds.
_LITTLE, _CALM = 0.08, 3


class NoSnapshot(InfrastructureError):
    """No snapshot can be taken of an image."""


class Snapshots:
    """The snapshots of one installation."""

    def __init__(self, settings: Settings, boot: Boot) -> None:
        self._store = SnapshotStore(settings)
        self._wanted = settings.text("worker.snapshots") == "yes"
        self._boot = boot

    def start(self, libvirt: Libvirt, isolation: str, plan: Plan, wait: Wait, tell: Observer) -> bool:
        """Start a guest that answers, from a snapshot where that is possible; returns whether it was.

        A snapshot that is not there is made, which takes as long as a cold boot and some seconds. One from which a
        guest ran that did not answer is not used for a day.
        """
        way = isolations.named(isolation)
        if isinstance(way, Machine) and plan.template is None and self._wanted:
            try:
                key = key_of(way, plan.image, plan.limits)
                self._claim(libvirt, isolation, plan, key, tell)
                self._restore(libvirt, way, plan, key, tell)
                self._await(libvirt, way, plan, key, wait)
            except InfrastructureError as error:
                tell(f"{plan.name} cannot be restored from a snapshot and is booted: {error.message}")
                way.end(libvirt, plan.name)
            else:
                return True
        way.prepare(plan)
        libvirt.start(way.xml(plan))
        way.limit(libvirt, plan)
        wait(way.start_timeout)
        return False

    def tidy(self, digest: Callable[[str], str | None]) -> None:
        """Remove what is not worth its room; `digest` tells that of an image as it is now."""
        self._store.tidy(lambda key: _current(key, digest))

    def stop(self) -> None:
        """Let go of everything in memory."""
        self._store.stop()

    def _claim(self, libvirt: Libvirt, isolation: str, plan: Plan, key: Key, tell: Observer) -> None:
        """Hold the snapshot of that key for a guest; it is made where there is none. Raises NoSnapshot."""
        _port(plan)
        why = self._store.refused(key)
        if why is not None:
            raise NoSnapshot(why)
        with self._store.claimed(key, plan.home):
            if not self._store.sound(key):
                try:
                    self._make(libvirt, isolation, plan, key, tell)
                except NoSnapshot as error:
                    self._store.refuse(key, error.message)
                    raise

    def _restore(self, libvirt: Libvirt, way: Machine, plan: Plan, key: Key, tell: Observer) -> None:
        """Start a guest from a snapshot and give it its identity. Source: QEMU's QMP reference."""
        snapshot = self._store.directory / key.name
        plan = replace(plan, resumption=Resumption(snapshot / "disk.qcow2", self._store.memory(key)))
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

    def _await(self, libvirt: Libvirt, way: Machine, plan: Plan, key: Key, wait: Wait) -> None:
        """Wait until a restored guest answers, which is quick; a snapshot whose guest runs and does not is refused."""
        try:
            wait(way.restored_timeout)
        except InfrastructureError as error:
            if libvirt.state(plan.name) is State.RUNNING:
                self._store.refuse(key, f"a guest that was restored from it did not answer: {error.message}")
            raise

    def _make(self, libvirt: Libvirt, isolation: str, plan: Plan, key: Key, tell: Observer) -> None:
        """Make a snapshot. The caller has locked it."""
        tell(f"booting {plan.image.name} once, for a snapshot")
        with self._store.making(key) as place, self._boot(isolation, plan, place, tell) as template:
            if template.digest != key.digest:
                raise InfrastructureError(f"the image {key.image} was built anew just now")
            _take(libvirt, template, plan, place)


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


def _current(key: Key, digest: Callable[[str], str | None]) -> bool:
    """Whether a guest that starts now could use a snapshot with that key."""
    if key.digest != digest(key.image):
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


def _until(condition: Callable[[], bool], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimedOut(f"QEMU was not done within {timeout:.0f} s")
        time.sleep(_PAUSE)

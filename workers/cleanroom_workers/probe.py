"""Which isolations work here, honestly: by starting a guest, not by looking whether a device is there.

A KVM device may exist, open, and still hang every stock kernel (paravirtual KVM in a cloud machine). So cheap
signs may only rule an isolation out; what rules it in is a guest that answered.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from cleanroom_base.errors import CleanroomError, InfrastructureError, TimedOut
from cleanroom_base.run import run
from cleanroom_images.description import native_architecture
from cleanroom_images.store import Image
from cleanroom_workers import isolations, kvm
from cleanroom_workers.daemon import Daemon, emulator_account
from cleanroom_workers.libvirt_access import Libvirt
from cleanroom_workers.platforms import foreign, platform

_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class IsolationProbe:
    """Whether an isolation works on this host, and how that is known.

    `certain` is False when the next try may end otherwise: a full disk, say, proves nothing.
    """

    isolation: str
    works: bool
    reason: str
    certain: bool = True


class Prober:
    """Probes isolations and keeps the answers in a file."""

    def __init__(self, file: Path, daemon: Daemon, attempt: Callable[[str, str], None]) -> None:
        """`attempt` starts and ends a guest: it gets an isolation and the name of an image."""
        self._file = file
        self._daemon = daemon
        self._attempt = attempt

    def probe(self, isolation: str, image: Image | None) -> IsolationProbe:
        """Whether an isolation works; without an image as far as one can tell without a guest."""
        excluded = self._excluded(isolation)
        if excluded is not None:
            return IsolationProbe(isolation, False, excluded)
        if image is None:
            return IsolationProbe(isolation, True, "nothing speaks against it; not tried yet: no image is built")
        key = f"{isolation} {_surroundings()} {image.name}"
        kept = self._kept()
        if key not in kept:
            probe = self._try(isolation, image)
            if not probe.certain:
                return probe
            kept[key] = asdict(probe)
            temporary = self._file.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(kept, indent=1), encoding="utf-8")
            temporary.replace(self._file)
        return IsolationProbe(isolation, bool(kept[key]["works"]), str(kept[key]["reason"]))

    def known(self) -> set[str]:
        """The isolations that were seen to work."""
        return {key.partition(" ")[0] for key, answer in self._kept().items() if answer["works"]}

    def choose(self, image: Image) -> str:
        """The first isolation that works; for an image of another architecture the only one. Raises
        InfrastructureError."""
        if foreign(image) is not None:
            return "emulated"
        probes = []
        for name in isolations.ISOLATIONS:
            probes.append(self.probe(name, image))
            if probes[-1].works:
                return name
            if not probes[-1].certain:
                # To go on with the next one would make a passing trouble a guest of another kind.
                raise InfrastructureError(f"isolation {name} does not work just now: {probes[-1].reason}")
        reasons = "; ".join(f"{probe.isolation}: {probe.reason}" for probe in probes)
        raise InfrastructureError(f"no isolation works on this host: {reasons}")

    def _try(self, isolation: str, image: Image) -> IsolationProbe:
        try:
            self._attempt(isolation, image.name)
        except CleanroomError as error:
            reason = f"a guest of {image.name} did not start: {error.message}"
            # A kernel that hangs under KVM hangs always; a container that is slow to answer is on a busy host.
            return IsolationProbe(isolation, False, reason, isolation == "kvm" and isinstance(error, TimedOut))
        return IsolationProbe(isolation, True, f"a guest of {image.name} started and answered")

    def _excluded(self, isolation: str) -> str | None:
        """What makes an isolation impossible, None when nothing does."""
        if isolation == "kvm":
            reason = kvm.excluded(*emulator_account())
            if reason is not None:
                return reason
        emulator = platform(native_architecture()).emulator
        if isolation in ("kvm", "emulated") and shutil.which(emulator) is None:
            return f"{emulator} is not installed"
        if isolation == "container" and os.geteuid() != 0:
            return "containers need root"
        try:
            Libvirt(self._daemon.uri(isolations.named(isolation).driver)).close()
        except CleanroomError as error:
            return error.message
        return None

    def _kept(self) -> dict[str, dict[str, object]]:
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            return content if isinstance(content, dict) else {}
        except (OSError, ValueError):
            return {}


@functools.cache
def _surroundings() -> str:
    """What an answer depends on, as one word: kernel, processor, libvirt's and QEMU's versions."""
    processor = [line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if "flags" in line]
    emulator = platform(native_architecture()).emulator
    programs = [program for program in ("libvirtd", emulator) if shutil.which(program)]
    versions = [run([program, "--version"], timeout=_TIMEOUT).text for program in programs]
    parts = [os.uname().release, *processor[:1], *versions]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

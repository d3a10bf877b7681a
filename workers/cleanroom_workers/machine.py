"""The virtual machine isolations: QEMU with KVM, or emulating everything (TCG).

The kernel is booted directly, on an overlay of the image's disk. The guest's identity comes in by the kernel's
command line and by systemd's credentials, so that nothing of ours lives in the image. A machine that is restored
from a snapshot boots nothing: it has the same devices, an overlay of the snapshot's disk, and its memory.
"""

from __future__ import annotations

import base64
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.run import run
from cleanroom_workers.console import LOG
from cleanroom_workers.daemon import emulator_account
from cleanroom_workers.libvirt_access import Libvirt
from cleanroom_workers.plan import Plan
from cleanroom_workers.platforms import foreign, platform

_TIMEOUT = 60.0
_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
ElementTree.register_namespace("qemu", _QEMU)
# The bytes that a socket's path may have. Source: unix(7).
_LONGEST_SOCKET = 107
# The name of the port by which a restored machine gets its identity; nobody listens to it in one that booted.
PORT = "identity"
# Nothing that a build needs waits for these.
_MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "getty.target", "systemd-networkd-wait-online.service"),
    *("systemd-ask-password-console.path", "systemd-ask-password-wall.path", "systemd-journal-flush.service"),
    *("systemd-logind.service", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service"),
)
# What the kernel and systemd are told in every machine. To write zeros into memory before it is used (a safeguard
# that Debian's kernels have on) costs emulation time, and restored machines memory of their own.
BOOT_OPTIONS = (
    *("root=/dev/vda", "rw", "quiet", "mitigations=off", "init_on_alloc=0", "net.ifnames=0"),
    *("systemd.show_status=0", *(f"systemd.mask={unit}" for unit in _MASKED)),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """Virtual machines of one libvirt domain type: `kvm` or `qemu` (emulated)."""

    domain: str
    start_timeout: float
    driver: str = "qemu"
    method: str = "cold boot"
    layered: bool = False

    @property
    def files(self) -> Mapping[str, tuple[int, bytes]]:
        """Nothing besides its identity."""
        return {}

    @property
    def restored_timeout(self) -> float:
        """The seconds in which a machine must answer that does not boot: that takes a tenth of the time."""
        return self.start_timeout / 5

    def prepare(self, plan: Plan) -> None:
        """Make the guest's disk. Raises InfrastructureError."""
        image = plan.image
        reason = foreign(image)
        if reason is not None and self.domain == "kvm":
            raise InputError(reason)
        kind = platform(image.architecture)
        if shutil.which(kind.emulator) is None:
            raise InfrastructureError(f"{kind.emulator} is not installed", hint=f"it comes with {kind.package}")
        if image.disk is None or image.kernel is None or image.initrd is None:
            raise InfrastructureError(f"the image {image.name} has no disk and kernel for virtual machines")
        below, form = (image.disk, image.disk_format)
        if plan.resumption is not None:
            below, form = (plan.resumption.disk, "qcow2")
        size = max(plan.limits.disk << 20, image.disk.stat().st_size)
        create: list[str | Path] = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", form, "-b", below]
        run([*create, _disk(plan), str(size)], timeout=_TIMEOUT)
        files = [_disk(plan), plan.home / LOG]
        if plan.template is not None:
            files.append(plan.template / "memory")
            with files[-1].open("wb") as memory:
                memory.truncate(plan.limits.memory << 20)
        if not kind.tables:
            files.append(plan.home / "credential")
            files[-1].touch(mode=0o600)
            files[-1].write_bytes(_credential(plan))
        for file in files:
            file.touch()
            os.chown(file, *emulator_account())
        plan.home.chmod(0o711)

    def xml(self, plan: Plan) -> str:
        """The libvirt domain. Source: libvirt's domain XML format."""
        kind = platform(plan.image.architecture)
        domain = Element("domain", type=self.domain)
        SubElement(domain, "name").text = plan.name
        SubElement(domain, "memory", unit="MiB").text = str(plan.limits.memory)
        SubElement(domain, "vcpu").text = str(plan.limits.processors)
        system = SubElement(domain, "os")
        SubElement(system, "type", arch=kind.architecture, machine=kind.machine).text = "hvm"
        if plan.resumption is None:
            _boot(domain, system, plan)
        if kind.tables:
            SubElement(SubElement(domain, "features"), "acpi")
        if self.domain == "kvm":
            SubElement(domain, "cpu", mode="host-passthrough")
        elif kind.processor is not None:
            model = SubElement(domain, "cpu", mode="custom", match="exact", check="none")
            SubElement(model, "model", fallback="forbid").text = kind.processor
        SubElement(domain, "clock", offset="utc")
        if kind.tables:
            # A new one tells the kernel of a restored machine that it is not what it was. Source: Linux's vmgenid.
            SubElement(domain, "genid").text = str(uuid.uuid4())
        for event in ("on_poweroff", "on_reboot", "on_crash"):
            SubElement(domain, event).text = "destroy"
        _devices(SubElement(domain, "devices"), plan)
        label = SubElement(domain, "seclabel", type="static", model="dac", relabel="no")
        user, group = emulator_account()
        SubElement(label, "label").text = f"+{user}:+{group}"
        _memory(domain, plan)
        return ElementTree.tostring(domain, encoding="unicode")

    def limit(self, libvirt: Libvirt, plan: Plan) -> None:
        """Nothing is left to be limited: a machine cannot use more than it was given."""

    def first_process(self, libvirt: Libvirt, name: str) -> int | None:
        """None: a machine is ended by libvirt."""
        del libvirt, name
        return None

    def end(self, libvirt: Libvirt, name: str) -> None:
        """End a machine at once."""
        libvirt.destroy(name)

    def release(self, name: str) -> None:
        """Nothing is left outside the guest's own directory."""


def port(plan: Plan) -> Path | None:
    """The host's end of the port by which a restored machine gets its identity; None where its path is too long."""
    place = plan.home / "port"
    return place if len(os.fsencode(place)) <= _LONGEST_SOCKET else None


def command_line(plan: Plan) -> str:
    """The kernel's command line. Source: systemd's kernel-command-line(7), systemd-network-generator(8)."""
    netmask = str(plan.netmask)
    return " ".join(
        [
            *BOOT_OPTIONS,
            f"console={platform(plan.image.architecture).console}",
            f"ip={plan.address}::{plan.gateway}:{netmask}::eth0:off",
            f"systemd.hostname={plan.identity.host_name} systemd.machine_id={plan.identity.machine_id}",
            f"systemd.tasks_max={plan.limits.processes}",
        ]
    )


def _credential(plan: Plan) -> bytes:
    """The guest's files as lines for systemd-tmpfiles.

    Source: tmpfiles.d(5) (`f+~`: write, in place of what is there, content in Base64).
    """
    lines = []
    for path, (mode, content) in plan.files.items():
        if path == "etc/machine-id":
            continue  # by the kernel's command line: it must be there before files are
        encoded = base64.b64encode(content).decode("ascii")
        directory = path.rsplit("/", 1)[0]
        if directory == "root/.ssh":
            lines.append(f"d /{directory} 0700 root root -")
        lines.append(f"f+~ /{path} {mode:04o} root root - {encoded}")
    return "\n".join([*lines, ""]).encode()


def _boot(domain: Element, system: Element, plan: Plan) -> None:
    SubElement(system, "kernel").text = str(plan.image.kernel)
    SubElement(system, "initrd").text = str(plan.image.initrd)
    SubElement(system, "cmdline").text = command_line(plan)
    # How systemd is told credentials: by SMBIOS strings, or where there are none by QEMU itself. Source: systemd(1).
    if platform(plan.image.architecture).tables:
        SubElement(system, "smbios", mode="sysinfo")
        strings = SubElement(SubElement(domain, "sysinfo", type="smbios"), "oemStrings")
        encoded = base64.b64encode(_credential(plan)).decode("ascii")
        SubElement(strings, "entry").text = f"io.systemd.credential.binary:tmpfiles.extra={encoded}"
    else:
        told = SubElement(domain, "sysinfo", type="fwcfg")
        SubElement(told, "entry", name="opt/io.systemd.credentials/tmpfiles.extra", file=str(plan.home / "credential"))


def _memory(domain: Element, plan: Plan) -> None:
    """Have the memory in a file, which libvirt cannot at a place of one's choice.

    A template writes into the file; a restored machine copies what it changes. Source: QEMU's manual,
    `-object memory-backend-file`, and docs/system/vm-templating.
    """
    if plan.template is not None:
        file, share, more = plan.template / "memory", "on", []
    elif plan.resumption is not None:
        file, share, more = plan.resumption.memory, "off", ["-incoming", "defer"]
    else:
        return
    # A comma in a value is written twice.
    path = str(file).replace(",", ",,")
    backend = f"memory-backend-file,id=template,size={plan.limits.memory}M,mem-path={path},share={share}"
    arguments = SubElement(domain, f"{{{_QEMU}}}commandline")
    for argument in ("-object", backend, "-machine", "memory-backend=template", *more):
        SubElement(arguments, f"{{{_QEMU}}}arg", value=argument)
    # Without this ability of QEMU libvirt asks for the processor's features in two questions instead of 400, which
    # take longer than all else together.
    abilities = SubElement(domain, f"{{{_QEMU}}}capabilities")
    SubElement(abilities, f"{{{_QEMU}}}del", capability="cpu-unavailable-features")


def _disk(plan: Plan) -> Path:
    return (plan.home if plan.template is None else plan.template) / "disk.qcow2"


def _devices(devices: Element, plan: Plan) -> None:
    disk = SubElement(devices, "disk", type="file", device="disk")
    SubElement(disk, "driver", name="qemu", type="qcow2", cache="unsafe", discard="unmap")
    SubElement(disk, "source", file=str(_disk(plan)))
    SubElement(disk, "target", dev="vda", bus="virtio")
    connection = SubElement(devices, "interface", type="network")
    SubElement(connection, "mac", address=plan.identity.mac)
    SubElement(connection, "source", network=plan.network)
    SubElement(connection, "target", dev=plan.device)
    SubElement(connection, "model", type="virtio")
    SubElement(connection, "port", isolated="yes")
    rng = SubElement(devices, "rng", model="virtio")
    SubElement(rng, "backend", model="random").text = "/dev/urandom"
    serial = SubElement(devices, "serial", type="pty")
    SubElement(serial, "log", file=str(plan.home / LOG), append="on")
    SubElement(serial, "target", port="0")
    place = port(plan)
    if place is not None:
        channel = SubElement(devices, "channel", type="unix")
        SubElement(channel, "source", mode="bind", path=str(place))
        SubElement(channel, "target", type="virtio", name=PORT)
    SubElement(devices, "controller", type="usb", model="none")
    SubElement(devices, "memballoon", model="none")

"""The container isolation: libvirt's LXC driver on an overlay of the image's tree.

Native speed and a kernel shared with the host. What a guest writes goes to a file system of its own in a file
of limited size, and is not made durable: it lives for minutes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.run import run
from cleanroom_workers import groups, idmap, mounts
from cleanroom_workers.libvirt_access import Libvirt
from cleanroom_workers.plan import Plan
from cleanroom_workers.platforms import foreign

_TIMEOUT = 60.0
_END_TIMEOUT = 2.0
_ANYWHERE = str(IPv4Address(0))
_PERIOD = 100_000  # microseconds
# Capabilities that building and testing packages does not need and that reach beyond the container.
_DROPPED = (
    *("audit_control", "block_suspend", "linux_immutable", "mac_admin", "mac_override", "mknod"),
    *("sys_boot", "sys_module", "sys_rawio", "sys_time", "syslog", "wake_alarm"),
)
# Started by nothing that a build needs, and what they do is done from outside.
_MASKED = (
    *("console-getty.service", "getty.target", "dev-hugepages.mount", "sys-fs-fuse-connections.mount"),
    *("systemd-ask-password-console.path", "systemd-ask-password-wall.path", "systemd-journal-flush.service"),
    *("systemd-logind.service", "systemd-network-generator.service", "systemd-networkd.service"),
    *("systemd-networkd.socket", "systemd-remount-fs.service", "systemd-tmpfiles-setup-dev.service"),
    *("systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "e2scrub_reap.service"),
)
# Programs of systemd's that look, at each start, for what no container has: disks, encryption, terminals, a TPM. They
# took a quarter of the time until a container answered. Those for init scripts, rc.local and masks stay.
_WITHOUT_USE = (
    *("cryptsetup", "integritysetup", "veritysetup", "hibernate-resume", "gpt-auto", "fstab", "getty"),
    *("system-update", "run", "ssh", "tpm2", "import", "factory-reset", "bless-boot"),
)


@dataclass(frozen=True, slots=True)
class Container:
    """Containers by libvirt's LXC driver."""

    driver: str = "lxc"
    method: str = "overlay"
    start_timeout: float = 60.0
    layered: bool = True

    @property
    def files(self) -> Mapping[str, tuple[int, bytes]]:
        """Empty files in the place of systemd's generators: that is how they are masked. systemd.generator(7)."""
        return {f"etc/systemd/system-generators/systemd-{name}-generator": (0o644, b"") for name in _WITHOUT_USE}

    def prepare(self, plan: Plan) -> None:
        """Make the root file system of the guest. Raises CommandError."""
        reason = foreign(plan.image)
        if reason is not None:
            raise InputError(reason)
        if plan.image.tree is None:
            raise InfrastructureError(f"the image {plan.image.name} has no tree for containers")
        disk = plan.home / "disk"
        with disk.open("wb") as file:
            file.truncate(plan.limits.disk << 20)
        make = [
            "mke2fs",
            "-q",
            "-F",
            "-t",
            "ext4",
            "-m",
            "0",
            "-O",
            "^has_journal",
            "-E",
            "lazy_itable_init=1",
        ]
        run([*make, disk], timeout=_TIMEOUT)
        store = plan.home / "store"
        root = plan.home / "root"
        lower = plan.home / "lower"
        for directory in (store, root, lower):
            directory.mkdir()
        idmap.mount(plan.image.tree, lower, plan.first_user)
        if plan.layer is not None:
            layer = plan.home / "layer"
            layer.mkdir()
            idmap.mount(plan.layer, layer, plan.first_user)
        mount_root(plan.home, plan.first_user)
        if groups.separate():
            groups.make(plan.name, plan.limits.processes)
        for path, (mode, content) in plan.files.items():
            place_file(root, path, mode, content, plan.first_user)

    def xml(self, plan: Plan) -> str:
        """The libvirt domain. Source: libvirt's domain XML format and its LXC driver's page."""
        domain = Element("domain", type="lxc")
        SubElement(domain, "name").text = plan.name
        SubElement(domain, "memory", unit="MiB").text = str(plan.limits.memory)
        SubElement(domain, "vcpu").text = str(plan.limits.processors)
        tuning = SubElement(domain, "cputune")
        SubElement(tuning, "period").text = str(_PERIOD)
        SubElement(tuning, "quota").text = str(_PERIOD * plan.limits.processors)
        system = SubElement(domain, "os")
        SubElement(system, "type").text = "exe"
        SubElement(system, "init").text = "/sbin/init"
        for argument in _init_arguments():
            SubElement(system, "initarg").text = argument
        capabilities = SubElement(SubElement(domain, "features"), "capabilities", policy="default")
        for capability in _DROPPED:
            SubElement(capabilities, capability, state="off")
        users = SubElement(domain, "idmap")
        for kind in ("uid", "gid"):
            SubElement(users, kind, start="0", target=str(plan.first_user), count=str(idmap.COUNT))
        for event in ("on_poweroff", "on_reboot", "on_crash"):
            SubElement(domain, event).text = "destroy"
        devices = SubElement(domain, "devices")
        if groups.separate():
            SubElement(devices, "emulator").text = str(Path(__file__).with_name("container-keeper"))
        root = SubElement(devices, "filesystem", type="mount", accessmode="passthrough")
        SubElement(root, "source", dir=str(plan.home / "root"))
        SubElement(root, "target", dir="/")
        connection = SubElement(devices, "interface", type="network")
        SubElement(connection, "mac", address=plan.identity.mac)
        SubElement(connection, "source", network=plan.network)
        SubElement(connection, "target", dev=plan.device)
        SubElement(connection, "guest", dev="eth0")
        SubElement(connection, "port", isolated="yes")
        SubElement(connection, "ip", address=plan.address, family="ipv4", prefix=str(plan.prefix))
        SubElement(connection, "route", family="ipv4", address=_ANYWHERE, prefix="0", gateway=plan.gateway)
        SubElement(devices, "console", type="pty")
        return ElementTree.tostring(domain, encoding="unicode")

    def limit(self, libvirt: Libvirt, plan: Plan) -> None:
        """Bound the number of processes. Raises InfrastructureError when the container ended meanwhile."""
        keeper = libvirt.process(plan.name)
        if keeper is None:
            raise InfrastructureError(f"the container {plan.name} ended at once")
        if not groups.separate():
            groups.limit(keeper, plan.limits.processes)

    def first_process(self, libvirt: Libvirt, name: str) -> int | None:
        """The container's own first process: when it is killed, the kernel kills all others. pid_namespaces(7)."""
        keeper = libvirt.process(name)
        with contextlib.suppress(InfrastructureError, FileNotFoundError):
            return None if keeper is None else _only_child(keeper)
        return None

    def end(self, libvirt: Libvirt, name: str) -> None:
        """End a container at once; libvirt would first ask its processes to, and give them two seconds."""
        first = self.first_process(libvirt, name)
        if first is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(first, signal.SIGKILL)
            libvirt.wait_for_end(name, _END_TIMEOUT)
        libvirt.destroy(name)

    def release(self, name: str) -> None:
        """Take away the container's control groups."""
        groups.remove(name)


def mount_root(home: Path, first_user: int) -> None:
    """Mount a container's root file system: its own files in `disk` over the image and the layer, if there is one."""
    store = home / "store"
    mounts.mount(home / "disk", store, options="loop,noatime,nosuid,nodev")
    # What is in `work` belongs to a mount before, if there was one.
    shutil.rmtree(store / "work", ignore_errors=True)
    for directory in (store / "upper", store / "work"):
        if not directory.is_dir():
            directory.mkdir(mode=0o755)
            os.chown(directory, first_user, first_user)
    lowers = [lower for lower in (home / "layer", home / "lower") if lower.is_dir()]
    # `volatile` drops all waiting for the disk. Source: the kernel's Documentation/filesystems/overlayfs.rst.
    layers = f"lowerdir={':'.join(map(str, lowers))},upperdir={store}/upper,workdir={store}/work,volatile"
    mounts.mount("overlay", home / "root", kind="overlay", options=layers)


def place_file(root: Path, path: str, mode: int, content: bytes, owner: int) -> None:
    """Write a file of `owner` below `root` without following any link on the way: an imported image may hold some."""
    *parents, name = path.split("/")
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for parent in parents:
            directory = _enter(directory, parent, owner, 0o755 if mode & stat.S_IROTH else 0o700)
        temporary = f".{name}.{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, mode, dir_fd=directory), "wb") as file:
            os.fchown(file.fileno(), owner, owner)
            os.fchmod(file.fileno(), mode)
            file.write(content)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        os.close(directory)


def _enter(directory: int, name: str, owner: int, mode: int) -> int:
    """Open a directory in a directory, made with that mode if need be, in place of that one."""
    try:
        if not _exists(directory, name):
            os.mkdir(name, mode, dir_fd=directory)
            os.chown(name, owner, owner, dir_fd=directory, follow_symlinks=False)
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
    finally:
        os.close(directory)


def _exists(directory: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _init_arguments() -> list[str]:
    """What systemd would find on a kernel's command line: in a container it reads its own. kernel-command-line(7)."""
    return ["systemd.unit=multi-user.target", *(f"systemd.mask={unit}" for unit in _MASKED)]


def _only_child(process: int) -> int:
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    if not children:
        raise InfrastructureError("the container ended at once")
    return int(children[0])

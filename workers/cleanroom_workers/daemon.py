"""The libvirt daemon: the one that runs on the machine, or a private one of this installation.

A private one has its own sockets, configuration and memory (see `private-libvirtd`), so that installations with
different state directories do not meet, and nothing of the machine's own libvirt is touched.
"""

from __future__ import annotations

import contextlib
import grp
import pwd
import shutil
import time
from pathlib import Path

from cleanroom_base.errors import InfrastructureError, TimedOut
from cleanroom_base.run import start
from cleanroom_base.settings import Settings
from cleanroom_workers import kvm
from cleanroom_workers.libvirt_access import Libvirt, LibvirtError
from cleanroom_workers.processes import end, keep, started

_SYSTEM_SOCKET = Path("/run/libvirt/libvirt-sock")
_DRIVERS = ("lxc", "qemu")
# Where the driver for containers mounts things, in a mount namespace of the container's keeper.
_LEFT_DIRECTORIES = ("dev", "devpts", "fuse")
# Longer names are cut in what a machine's directories are called, and may then be another's. Source:
# VIR_DOMAIN_SHORT_NAME_MAX in libvirt's domain_conf.c.
_SHORT_NAME = 20
_START_TIMEOUT = 20.0
_STOP_TIMEOUT = 10.0
_PAUSE = 0.02
# Guests' consoles go to plain files (no second daemon for logs), and disks keep the owner we gave them. A
# further mount namespace for each machine would not cope with a KVM device that is hidden.
_QEMU_CONFIGURATION = """\
stdio_handler = "file"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
user = "{user}"
group = "{group}"
"""


class Daemon:
    """The libvirt daemon for this installation's guests."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._persistent = settings.state / "libvirt"
        self._runtime = settings.runtime / "libvirt"
        self._socket = self._runtime / "libvirt-sock"

    def uri(self, driver: str) -> str:
        """The address of a driver (`lxc` or `qemu`) at the daemon to use."""
        path = "/" if driver == "lxc" else "/system"
        configured = self._settings.optional("worker.libvirt_uri")
        if configured is not None:
            return configured.replace("DRIVER", driver)
        if self._uses_system():
            return f"{driver}://{path}"
        return f"{driver}+unix://{path}?socket={self._socket}"

    def ensure(self) -> None:
        """Have a daemon that answers: the configured one, the machine's, or start ours. The caller holds a lock."""
        if self._settings.optional("worker.libvirt_uri") is not None or self._uses_system():
            return
        if self._process() is not None and self._answers():
            return
        self.stop()
        self._configure()
        program = Path(__file__).with_name("private-libvirtd")
        device = "without-kvm" if kvm.excluded(*emulator_account()) else "with-kvm"
        process = start(
            [
                "unshare",
                "--mount",
                "--propagation",
                "slave",
                program,
                self._persistent,
                self._runtime,
                device,
            ],
            log=self._persistent / "daemon.log",
        )
        keep(process)
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._answers():
            if process.poll() is not None:
                raise InfrastructureError(f"libvirtd did not start:\n{_tail(self._persistent / 'daemon.log')}")
            if time.monotonic() > deadline:
                raise TimedOut(f"libvirtd did not answer within {_START_TIMEOUT:.0f} s")
            time.sleep(_PAUSE)

    def stop(self) -> None:
        """End the daemon that we started, if any; the machine's own is left alone."""
        process = self._process()
        since = None if process is None else started(process)
        if process is not None and since is not None:
            end(process, since=since, timeout=_STOP_TIMEOUT)

    def forget(self, name: str) -> None:
        """Take away what libvirt leaves of each guest for ever: directories below /run, which is memory, and a log.

        Where libvirt itself was killed it also leaves what a machine's monitor was reached by.
        """
        runtime, variable, logs = self._places()
        for suffix in _LEFT_DIRECTORIES:
            with contextlib.suppress(OSError):
                (runtime / "lxc" / f"{name}.{suffix}").rmdir()
        for file in (runtime / "lxc" / f"{name}.sock", *(logs / driver / f"{name}.log" for driver in _DRIVERS)):
            with contextlib.suppress(OSError):
                file.unlink()
        if len(name) <= _SHORT_NAME:
            for place in (variable / "qemu", variable / "qemu/channel/target"):
                for directory in place.glob(f"domain-*-{name}"):
                    shutil.rmtree(directory, ignore_errors=True)

    def _places(self) -> tuple[Path, Path, Path]:
        """Where the daemon keeps what runs, what stays, and its logs."""
        if self._uses_system():
            return Path("/run/libvirt"), Path("/var/lib/libvirt"), Path("/var/log/libvirt")
        return self._runtime, self._persistent / "lib", self._persistent / "log"

    def _uses_system(self) -> bool:
        # Once ours has been started it stays ours, even if the machine's own is started later.
        if self._process() is not None or not _SYSTEM_SOCKET.is_socket():
            return False
        return _connects("qemu:///system") and _connects("lxc:///")

    def _answers(self) -> bool:
        return self._socket.is_socket() and _connects(self.uri("lxc"))

    def _process(self) -> int | None:
        """The process number of our daemon while it runs."""
        try:
            number = int((self._runtime / "libvirtd.pid").read_text(encoding="ascii"))
            name = Path(f"/proc/{number}/comm").read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        return number if name == "libvirtd" and started(number) is not None else None

    def _configure(self) -> None:
        configuration = self._persistent / "etc"
        configuration.mkdir(parents=True, exist_ok=True)
        self._runtime.mkdir(parents=True, exist_ok=True)
        user, group = emulator_account()
        (configuration / "qemu.conf").write_text(
            _QEMU_CONFIGURATION.format(user=f"+{user}", group=f"+{group}"), encoding="utf-8"
        )
        # auth_unix_rw: whoever may open the socket (root alone, by its mode) may use it.
        (configuration / "libvirtd.conf").write_text(
            'unix_sock_rw_perms = "0700"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n', encoding="utf-8"
        )


def emulator_account() -> tuple[int, int]:
    """The user and group numbers under which QEMU runs: never root."""
    users = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    groups = {entry.gr_name: entry.gr_gid for entry in grp.getgrall()}
    user = next((users[name] for name in ("libvirt-qemu", "nobody") if name in users), 65534)
    # The group that may open /dev/kvm, where there is one.
    return user, next((groups[name] for name in ("kvm", "nogroup") if name in groups), 65534)


def _connects(uri: str) -> bool:
    try:
        Libvirt(uri).close()
    except LibvirtError:
        return False
    return True


def _tail(file: Path) -> str:
    try:
        return "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-10:])
    except OSError:
        return "(it left no log)"

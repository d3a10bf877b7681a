"""What makes a restored machine another one than its template: said to it over a port, before anything else happens.

A program waits for it that was started in the template (see `renewal.pl`), so nothing of ours is in the image; it
ends with the new identity.
"""

from __future__ import annotations

import socket
import time
from ipaddress import IPv4Network
from pathlib import Path
from types import TracebackType

from cleanroom_base.errors import InfrastructureError, TimedOut
from cleanroom_workers.machine import PORT
from cleanroom_workers.plan import Plan

_LONGEST_ANSWER = 4096
_PROGRAM = Path(__file__).with_suffix(".pl").read_text(encoding="utf-8")
# The number of the system call clock_settime. Source: the kernel's tables of each architecture.
_CLOCK_SETTIME = {"amd64": 227, "arm64": 112, "riscv64": 112}
# Run in the template over its ordinary connection: wait until all is started, and have the program wait. Nothing
# may give the network another address than the one it is told. The SSH server is not to start itself anew for each
# connection (-r; versions from 9.8 on do not know that any more), which takes half a second under emulation.
_SETTLE = f"""set -eu
systemctl is-system-running --wait > /dev/null || true
[ -c /dev/virtio-ports/{PORT} ] || {{ echo "it has no port {PORT}"; exit 3; }}
perl -e 'use Fcntl; use POSIX; use Socket' || {{ echo "it has no perl"; exit 3; }}
systemctl stop systemd-networkd.socket systemd-networkd.service
rm -f /run/systemd/network/*
if [ -e /etc/default/ssh ]; then
  cp -p /etc/default/ssh /run/ssh.default
  echo SSHD_OPTS=-r >> /etc/default/ssh
  systemctl restart ssh.service
  mv /run/ssh.default /etc/default/ssh
fi
setsid --fork perl -e "$1" /dev/virtio-ports/{PORT} "$2" "$3" < /dev/null > /dev/null 2>&1
"""
# Run in it when nobody is connected any more: give the address back, and have the SSH server start anew. It stops at
# reading its key, which it gets when the machine is restored.
_REST = """set -eu
ip address flush dev eth0
ip link set dev eth0 down
rm -f /etc/ssh/ssh_host_ed25519_key
mkfifo -m 0600 /etc/ssh/ssh_host_ed25519_key
read -r sshd < /run/sshd.pid
kill -HUP "$sshd"
udevadm settle --timeout=60
sync
"""
# All that a snapshot depends on of what is here.
PREPARATION = "\n".join([_PROGRAM, _SETTLE, _REST])


def settling(architecture: str) -> list[str]:
    """The command that prepares a template for being saved; status 3 says that its image cannot be."""
    number = _CLOCK_SETTIME.get(architecture)
    if number is None:
        return ["sh", "-c", f"echo 'nothing is known about {architecture}'; exit 3"]
    return ["sh", "-c", _SETTLE, "sh", _PROGRAM, _REST, str(number)]


class Port:
    """The host's end of the port of a machine. Used with `with`."""

    def __init__(self, path: Path, timeout: float) -> None:
        """Connect; `timeout` (seconds) is for everything that is said. Raises InfrastructureError."""
        self._deadline = time.monotonic() + timeout
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise InfrastructureError(f"cannot reach the guest at its port: {error}") from error

    def rest(self) -> None:
        """Have a template that has settled give its address back and come to rest. Raises InfrastructureError."""
        self._say("rest\n", "resting")

    def renew(self, plan: Plan) -> None:
        """Give a restored machine its identity. Raises InfrastructureError."""
        self._say(message(plan, time.time_ns()), "renewed")

    def _say(self, text: str, answer: str) -> None:
        heard = b""
        try:
            self._socket.sendall(text.encode())
            while not heard.endswith(b"\n") and len(heard) < _LONGEST_ANSWER:
                self._socket.settimeout(max(self._deadline - time.monotonic(), 0.01))
                chunk = self._socket.recv(_LONGEST_ANSWER)
                if not chunk:
                    raise InfrastructureError("the guest ended before it had answered at its port")
                heard += chunk
        except TimeoutError as error:
            raise TimedOut(f"the guest was not {answer} in its time") from error
        except OSError as error:
            raise InfrastructureError(f"the guest does not listen at its port: {error}") from error
        if heard.decode(errors="replace").strip() != answer:
            raise InfrastructureError(f"the guest was not {answer}: {heard[:200].decode(errors='replace').strip()}")

    def __enter__(self) -> Port:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()


def message(plan: Plan, now: int) -> str:
    """What a restored machine is to be, as `renewal.pl` reads it; `now` is in nanoseconds since the epoch."""
    network = IPv4Network(f"{plan.address}/{plan.prefix}", strict=False)
    lines = [
        f"clock {now // 10**9} {now % 10**9}",
        f"random {plan.identity.seed.hex()}",
        f"name {plan.identity.host_name}",
        *(f"file {mode:o} /{path} {content.hex()}" for path, (mode, content) in plan.files.items()),
        f"network {plan.identity.mac.replace(':', '')} {plan.address} {plan.netmask} "
        f"{network.broadcast_address} {plan.gateway}",
        "end",
    ]
    return "\n".join([*lines, ""])

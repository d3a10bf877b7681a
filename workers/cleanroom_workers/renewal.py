"""What makes a restored machine another one than its template: said to it over a port, before anything else happens.

The template waits with a shell that reads from the port, so nothing of ours is in the image, and the shell ends with
the new identity. Under emulation every program that starts in the guest takes tens of milliseconds, so there are
as few as possible.
"""

from __future__ import annotations

import shlex
import socket
import time
from pathlib import Path
from types import TracebackType

from cleanroom_base.errors import InfrastructureError, TimedOut
from cleanroom_workers.machine import PORT
from cleanroom_workers.plan import Plan

_LONGEST_ANSWER = 4096
_DONE = "renewed"
_FAILED = "failed"
_HOST_KEY = "etc/ssh/ssh_host_ed25519_key"
# Has the kernel make its random numbers anew from what was gathered. Source: random(4), RNDRESEEDCRNG.
_RESEED = 'open my $r, ">", "/dev/random" or die; ioctl $r, 0x5207, 0 or die "$!\\n"'

_REPLACE = f'rename "/{_HOST_KEY}.new", "/{_HOST_KEY}" or die'

# Run in the template over its ordinary connection: wait until it is idle, and have the shell wait. A kernel
# that is told of the restoration only by its random generator needs somebody to make that one anew.
SETTLE = f"""set -eu
systemctl is-system-running --wait > /dev/null || true
[ -c /dev/virtio-ports/{PORT} ] || {{ echo "it has no port {PORT}"; exit 3; }}
perl -e '{_RESEED}' || {{ echo "nothing in it can renew its random numbers"; exit 3; }}
systemctl stop systemd-networkd.socket systemd-networkd.service
rm -f /run/systemd/network/*
setsid --fork sh -c 'exec sh <> /dev/virtio-ports/{PORT} >&0 2> /dev/null' < /dev/null > /dev/null 2>&1
"""
# Then said over the port, when nobody is connected any more: give the address back, and come to rest. The SSH server
# starts anew and stops at reading its key, which it will get when the machine is restored.
REST = f"""ip -batch - <<'END'
address flush dev eth0
link set dev eth0 down
END
rm /{_HOST_KEY}
mkfifo -m 0600 /{_HOST_KEY}
read -r sshd < /run/sshd.pid
kill -HUP "$sshd"
sleep 2
sync
printf 'resting\\n'
"""


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
        self._say(REST, "resting")

    def renew(self, plan: Plan) -> None:
        """Give a restored machine its identity. Raises InfrastructureError."""
        self._say(script(plan, time.time()), _DONE)

    def _say(self, text: str, answer: str) -> None:
        heard = b""
        try:
            self._socket.sendall(text.encode())
            while not heard.endswith(b"\n"):
                self._socket.settimeout(max(self._deadline - time.monotonic(), 0.01))
                heard += self._socket.recv(_LONGEST_ANSWER)
                if len(heard) > _LONGEST_ANSWER:
                    break
        except TimeoutError as error:
            raise TimedOut(f"the guest was not {answer} in its time") from error
        except OSError as error:
            raise InfrastructureError(f"the guest does not listen at its port: {error}") from error
        if heard.decode(errors="replace").strip() != answer:
            raise InfrastructureError(f"the guest could not take its new identity: {heard[:200]!r}")

    def __enter__(self) -> Port:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()


def script(plan: Plan, now: float) -> str:
    """What the waiting shell does at `now` (seconds since the epoch): the clock first, the way in last."""
    lines = [
        "set -e",
        f"trap 'printf \"{_FAILED}\\n\"' EXIT",
        f"date --set=@{now:.6f} > /dev/null",
        # As text: what the kernel makes of it does not depend on how it is written.
        f"printf %s {plan.identity.seed.hex()} > /dev/urandom",
    ]
    for path, (mode, content) in plan.files.items():
        # A file that the template has keeps its mode; shell redirection makes others by the mask.
        lines.append(f"umask {0o666 & ~mode:04o}")
        lines.append(f"printf %s {shlex.quote(content.decode())} > /{path}{'.new' * (path == _HOST_KEY)}")
    lines += [
        f"printf %s {plan.identity.host_name} > /proc/sys/kernel/hostname",
        "ip -batch - <<'END'",
        f"link set dev eth0 address {plan.identity.mac}",
        f"address add {plan.address}/{plan.prefix} broadcast + dev eth0",
        "link set dev eth0 up",
        f"route add default via {plan.gateway}",
        "END",
        # The server gets its key only when everybody else finds the file: it opens the path more than once.
        f"exec 3<> /{_HOST_KEY}",
        f"perl -e {shlex.quote(f'{_RESEED}; {_REPLACE}')}",
        f"printf %s {shlex.quote(plan.files[_HOST_KEY][1].decode())} >&3",
        "exec 3>&-",
        "trap - EXIT",
        f"printf '{_DONE}\\n'",
        "exit",
    ]
    return "\n".join([*lines, ""])

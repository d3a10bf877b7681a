"""The channel into a guest: SSH to a static address over one connection that stays open.

The host's key was made by us and is checked strictly. A command's exit status comes back exactly, 255 too,
which is also what ssh says when the connection is lost.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cleanroom_base.errors import InfrastructureError, InputError, TimedOut
from cleanroom_base.run import CAPTURE_LIMIT, CommandTimedOut, Completed, OutputLimitExceeded, Process, run, start
from cleanroom_workers.processes import keep

PORT = 22
_PAUSE = 0.005
_DIAL = Path(__file__).with_name("dial.py")
_ASK_TIMEOUT = 10.0
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The status with which ssh itself fails. Source: ssh(1), EXIT STATUS.
_SSH_FAILED = 255
# Nothing of the machine's or a person's configuration; the quickest of the modern algorithms.
_OPTIONS = (
    *("-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"),
    *("-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=none", "-o", "UpdateHostKeys=no"),
    *("-o", "HostKeyAlgorithms=ssh-ed25519", "-o", "KexAlgorithms=curve25519-sha256"),
    *("-o", "Ciphers=aes128-gcm@openssh.com", "-o", "PreferredAuthentications=publickey"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=6", "-o", "ConnectTimeout=30"),
    *("-o", "LogLevel=ERROR", "-o", "ForwardAgent=no", "-o", "ForwardX11=no", "-o", "EscapeChar=none"),
)


class ConnectionLost(InfrastructureError):
    """The connection to a guest is lost."""


@dataclass(frozen=True, slots=True)
class Shell:
    """A way in. `key` is the installation's private key, `known_hosts` holds the guest's own host key alone,
    `control` is the socket of the open connection."""

    address: str
    key: Path
    known_hosts: Path
    control: Path

    def open(self, deadline: float, alive: Callable[[], bool]) -> None:
        """Open the connection that all commands share, as soon as the guest's SSH server answers.

        `deadline` is in monotonic seconds; `alive` is asked now and then whether waiting is worth it.
        Raises TimedOut, ConnectionLost.
        """
        seconds = max(deadline - time.monotonic(), 0.0)
        dial = [sys.executable, "-I", "-S", str(_DIAL), self.address, str(PORT), f"{seconds:.1f}", str(os.getpid())]
        command = shlex.join(dial).replace("%", "%%")
        self._start(deadline, alive, ["-o", f"ProxyCommand={command}", "-o", "ProxyUseFdpass=yes"])

    def connect(self, deadline: float) -> None:
        """Open that connection to a guest that answers. Raises TimedOut, ConnectionLost."""
        self._start(deadline, lambda: True, [])

    def _start(self, deadline: float, alive: Callable[[], bool], options: Sequence[str]) -> None:
        if self.connected():
            return
        self.control.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.control.unlink(missing_ok=True)
        log = self.known_hosts.with_name("ssh.log")
        # Not ended with this process: another one may go on with the same guest.
        master = start([*self._ssh(), *options, "-M", "-N", self._destination], log=log)
        try:
            self._await(master, deadline, alive, log)
        except BaseException:
            master.kill()
            master.wait()
            raise
        keep(master)

    def _await(self, master: Process, deadline: float, alive: Callable[[], bool], log: Path) -> None:
        """Wait until the connection is open."""
        asked = time.monotonic()
        while not self.control.is_socket():
            moment = time.monotonic()
            if moment > deadline:
                raise TimedOut(f"no login into the guest at {self.address} in its time")
            if master.poll() is not None:
                end = log.read_text(encoding="utf-8", errors="replace").strip()[-500:]
                raise ConnectionLost(f"cannot log into the guest at {self.address}: {end}")
            if moment - asked > 1:
                asked = moment
                if not alive():
                    raise ConnectionLost(f"the guest at {self.address} ended before it answered")
            time.sleep(_PAUSE)

    def connected(self) -> bool:
        """Whether the shared connection is open."""
        if not self.control.is_socket():
            return False
        asked = run([*self._ssh(), "-O", "check", self._destination], timeout=_ASK_TIMEOUT, check=False)
        return asked.exit_status == 0

    def close(self) -> None:
        """Close the shared connection; nothing happens when it is not open."""
        if self.control.is_socket():
            with contextlib.suppress(InfrastructureError):
                run([*self._ssh(), "-O", "exit", self._destination], timeout=_ASK_TIMEOUT, check=False)
        self.control.unlink(missing_ok=True)

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        output: Callable[[bytes], None] | None = None,
        stdin: bytes | IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        user: str = "root",
        directory: str | None = None,
        output_limit: int | None = None,
    ) -> Completed:
        """Run a command in the guest; its words, environment and directory arrive there as they are here.

        Raises CommandTimedOut, OutputLimitExceeded, ConnectionLost.
        """
        mark = f"/run/cleanroom-{secrets.token_hex(8)}"
        remote = remote_command(command, environment=environment, user=user, directory=directory, mark=mark)
        words = " ".join(command)
        try:
            completed = run(
                [*self._ssh(), "-o", "ControlMaster=no", self._destination, remote],
                timeout=timeout,
                check=False,
                output=output,
                stdin=stdin,
                capture_limit=CAPTURE_LIMIT if output_limit is None else output_limit,
            )
        except CommandTimedOut:
            raise CommandTimedOut(f"{words} did not end within {timeout:.0f} s") from None
        except OutputLimitExceeded:
            raise OutputLimitExceeded(f"{words} printed more than {output_limit} bytes") from None
        if completed.exit_status == _SSH_FAILED and not self._take(mark):
            raise ConnectionLost(f"the connection to the guest at {self.address} was lost")
        return Completed(tuple(command), completed.exit_status, completed.stdout, completed.stderr, completed.seconds)

    def interactive(self, user: str) -> list[str | Path]:
        """The command that gives a person at this terminal a shell of `user` in the guest. Raises InputError."""
        if not _USER.fullmatch(user):
            raise InputError(f"{user!r} is no user's name")
        become = [] if user == "root" else [f"exec runuser --login {user}"]
        terminal = ["-t"] if sys.stdin.isatty() else []
        return [*self._ssh(), "-o", "ControlMaster=no", *terminal, self._destination, *become]

    def _take(self, mark: str) -> bool:
        """Whether the guest left the mark that says that 255 was the command's own status; removes it."""
        if not self.connected():
            return False
        taken = run(
            [*self._ssh(), "-o", "ControlMaster=no", self._destination, f"rm {mark}"],
            timeout=_ASK_TIMEOUT,
            check=False,
        )
        return taken.exit_status == 0

    @property
    def _destination(self) -> str:
        return f"root@{self.address}"

    def _ssh(self) -> list[str | Path]:
        places = (
            "-i",
            str(self.key),
            "-o",
            f"UserKnownHostsFile={self.known_hosts}",
            "-S",
            str(self.control),
        )
        return ["ssh", *_OPTIONS, *places]


def remote_command(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None,
    user: str,
    directory: str | None,
    mark: str,
) -> str:
    """The line for the guest's shell: every word quoted, nothing of the SSH session's environment left.

    Raises InputError for what no program could be given.
    """
    if not command:
        raise InputError("there is no command to run")
    if not _USER.fullmatch(user):
        raise InputError(f"{user!r} is no name of a user")
    variables = {**(account(user) if user == "root" else {}), "LANG": "C.UTF-8", **(environment or {})}
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise InputError(f"{name!r} cannot be set in an environment")
    if any("\0" in word for word in (*command, directory or "")):
        raise InputError("a command's words cannot hold a null byte")
    begin = ["env", "--ignore-environment"]
    if user != "root":
        begin = [
            "setpriv",
            "--reset-env",
            f"--reuid={user}",
            f'--regid="$(id -g {user})"',
            "--init-groups",
            "--",
            "env",
        ]
    words = [*(f"{name}={value}" for name, value in variables.items()), *command]
    # `env` would take a command with an equals sign in its name for a variable; `--` does not help there.
    line = " ".join([*begin, *map(shlex.quote, words)])
    if directory is not None:
        line = f"cd -- {shlex.quote(directory)} && {line}"
    return f"{line}; status=$?; [ $status -ne {_SSH_FAILED} ] || : > {mark}; exit $status"


def account(user: str) -> dict[str, str]:
    """What a login would set in the environment of a user. Source: login(1)."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root" if user == "root" else f"/home/{user}",
        "SHELL": "/bin/sh",
        "USER": user,
        "LOGNAME": user,
    }


def answers(address: str, port: int, *, patience: float = 1.0) -> bool:
    """Whether a TCP port answers within `patience` seconds."""
    try:
        socket.create_connection((address, port), timeout=patience).close()
    except OSError:
        return False
    return True

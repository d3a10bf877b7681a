"""A guest: a disposable machine that one drives from outside.

It holds nothing of ours: commands go in and output comes out through its SSH server. Whatever comes out is
hostile until proven otherwise.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from cleanroom_base.errors import InfrastructureError, ProductError, TimedOut
from cleanroom_base.run import Completed
from cleanroom_workers.libvirt_access import State
from cleanroom_workers.records import GuestRecord
from cleanroom_workers.shell import ConnectionLost, Shell, account, answers
from cleanroom_workers.transfer import pack, unpack

_COPY_TIMEOUT = 600.0
_PREPARE_TIMEOUT = 900.0
# A guest that shuts down needs so long, on a busy machine, from the end of its SSH server to its own.
_SETTLE = 60.0
_PAUSE = 0.05


def plain_environment(user: str) -> dict[str, str]:
    """What every program of ours finds in its environment in a guest."""
    return {
        **account(user),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "TERM": "dumb",
        "DEBIAN_FRONTEND": "noninteractive",
    }


class GuestLost(InfrastructureError):
    """A guest is gone that nobody ended."""


class GuestPoweredOff(ProductError):
    """The product switched its guest off."""


class GuestWentOff(GuestLost):
    """A container ended by itself, which is its product's doing or that of somebody who killed its first process.

    libvirt's driver for containers says "shut down" of both: it looks at no exit status. Source:
    virLXCControllerSignalChildIO in its lxc_controller.c, which only tells a reboot from everything else.
    """


class CommandFailed(ProductError):
    """A command in a guest did not end as it had to."""

    def __init__(self, completed: Completed, expected: str) -> None:
        self.completed = completed
        printed = (completed.stderr or completed.stdout)[-4096:].decode(errors="replace").strip()
        super().__init__(
            f"{' '.join(completed.command)} ended with status {completed.exit_status}, "
            f"{expected} was expected: {printed or 'it printed nothing'}"
        )


class Keeper(Protocol):
    """What a guest needs of the host that holds it."""

    def state(self, name: str) -> State:
        """What became of the guest."""

    def damaged(self, name: str) -> bool:
        """Whether the guest's disk lost something because the host's was full."""

    def destroy(self, name: str) -> None:
        """End the guest and take all of it away."""

    def dismiss(self, name: str) -> None:
        """End the guest; what is left of it may be taken away later."""


class Guest:
    """A running guest. Every call ends; times are in seconds."""

    def __init__(self, record: GuestRecord, shell: Shell, keeper: Keeper) -> None:
        self.record = record
        self._shell = shell
        self._keeper = keeper

    @property
    def name(self) -> str:
        """The guest's name on its host."""
        return self.record.name

    @property
    def image(self) -> str:
        """The name of the image it was started from."""
        return self.record.image

    @property
    def digest(self) -> str:
        """The digest of that image."""
        return self.record.digest

    @property
    def isolation(self) -> str:
        """`kvm`, `container` or `emulated`."""
        return self.record.isolation

    @property
    def method(self) -> str:
        """How it was reset."""
        return self.record.method

    @property
    def network(self) -> str:
        """The network policy."""
        return self.record.network

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        return self.record.address

    @property
    def reset_seconds(self) -> float:
        """How long the reset took until the guest answered."""
        return self.record.reset_seconds or 0.0

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
        """Run a command and return what it did, whatever its exit status.

        `output` gets standard output and standard error as they come. `output_limit` is in bytes. After a
        timeout, what the command started may still run: such a guest is to be thrown away.
        Raises GuestPoweredOff, GuestLost (of which one kind is GuestWentOff), CommandTimedOut, OutputLimitExceeded.
        """
        try:
            return self._shell.run(
                command,
                timeout=timeout,
                output=output,
                stdin=stdin,
                environment=environment,
                user=user,
                directory=directory,
                output_limit=output_limit,
            )
        except ConnectionLost as error:
            raise self._lost() from error

    def interactive(self, user: str = "root") -> list[str | Path]:
        """The command that gives a person at this terminal a shell of `user` in the guest. Raises InputError."""
        return self._shell.interactive(user)

    def succeed(self, command: Sequence[str], *, timeout: float, user: str = "root") -> Completed:
        """Run a command that must end with status 0. Raises CommandFailed and as `run` does."""
        completed = self.run(command, timeout=timeout, user=user)
        if completed.exit_status != 0:
            raise CommandFailed(completed, "0")
        return completed

    def fail(self, command: Sequence[str], *, timeout: float, user: str = "root") -> Completed:
        """Run a command that must not end with status 0. Raises CommandFailed and as `run` does."""
        completed = self.run(command, timeout=timeout, user=user)
        if completed.exit_status == 0:
            raise CommandFailed(completed, "another status")
        return completed

    def prepare(self, program: str) -> None:
        """Run a shell program that is to make the guest ready for its work. Raises InfrastructureError and as `run`."""
        environment = plain_environment("root")
        done = self.run(["sh"], timeout=_PREPARE_TIMEOUT, stdin=program.encode(), environment=environment)
        if done.exit_status != 0:
            printed = (done.stderr or done.stdout)[-1000:].decode(errors="replace").strip()
            raise InfrastructureError(f"the guest {self.name} could not be prepared: {printed}")

    def wait_until_succeeds(self, command: Sequence[str], *, timeout: float) -> Completed:
        """Run a command again and again until it ends with status 0. Raises TimedOut and as `run` does."""
        deadline = time.monotonic() + timeout
        while True:
            completed = self.run(command, timeout=max(deadline - time.monotonic(), 0.1))
            if completed.exit_status == 0:
                return completed
            if time.monotonic() > deadline:
                raise TimedOut(f"{' '.join(command)} did not succeed within {timeout:.0f} s")
            time.sleep(_PAUSE)

    def wait_for_port(self, port: int, timeout: float) -> None:
        """Wait until a TCP port of the guest answers. Raises TimedOut."""
        deadline = time.monotonic() + timeout
        while not answers(self.address, port):
            if time.monotonic() > deadline:
                raise TimedOut(f"port {port} of {self.name} did not answer within {timeout:.0f} s")
            time.sleep(_PAUSE)

    def copy_in(self, source: Path, destination: str) -> None:
        """Copy a file to the path `destination`, or what is in a directory into the directory `destination`.

        Owners become root; directories on the way are made. Raises as `run` does, InfrastructureError.
        """
        with tempfile.TemporaryFile() as stream:
            target = pack(source, destination, stream)
            stream.seek(0)
            self._extract(stream, target)

    def copy_in_bytes(self, content: bytes, destination: str, *, mode: int = 0o644) -> None:
        """Write a file with this content to the path `destination`. Raises as `copy_in` does."""
        path = PurePosixPath(destination)
        member = tarfile.TarInfo(path.name)
        member.size, member.mode, member.mtime = len(content), mode, int(time.time())
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            tar.addfile(member, io.BytesIO(content))
        self._extract(stream.getvalue(), str(path.parent))

    def copy_in_tar(self, stream: IO[bytes], destination: str) -> None:
        """Unpack a tar file (as it is read from an open file) into the directory `destination`."""
        self._extract(stream, destination)

    def copy_out(self, source: str, destination: Path, *, limit: int) -> list[Path]:
        """Copy regular files out: the file `source`, or all below the directory `source`, into `destination`.

        The guest is not believed: links, devices, names that lead elsewhere, and more than `limit` bytes are
        refused. Returns the paths of the files. Raises UnsafeFile (a ProductError), OutputLimitExceeded and as
        `run` does.
        """
        path = PurePosixPath(source)
        with tempfile.TemporaryFile() as stream:
            command = ["tar", "--create", "--file=-", f"--directory={path.parent}", "--", path.name or "."]
            # Tar's own framing comes on top of the files: two blocks of 512 bytes and more for each.
            completed = self.run(
                ["sh", "-c", 'exec "$@" 2> /dev/null', "sh", *command],
                timeout=_COPY_TIMEOUT,
                output=lambda chunk: _write(stream, chunk),
                output_limit=limit + max(limit // 4, 1 << 20),
            )
            if completed.exit_status != 0:
                raise ProductError(f"cannot read {source} in the guest {self.name}")
            stream.seek(0)
            return unpack(stream, destination, top=path.name, limit=limit)

    def disconnect(self) -> None:
        """Close the connection to the guest, which runs on."""
        self._shell.close()

    def state(self) -> State:
        """What became of the guest: running, powered off from inside, crashed, or destroyed."""
        return self._keeper.state(self.name)

    def damaged(self) -> bool:
        """Whether its disk lost something because the host's was full: nothing that it does counts any more."""
        return self._keeper.damaged(self.name)

    def destroy(self) -> None:
        """End the guest and forget everything in it."""
        self._keeper.destroy(self.name)

    def dismiss(self) -> None:
        """End the guest; what is left of it may be taken away a little later, by another process."""
        self._keeper.dismiss(self.name)

    def _extract(self, stream: bytes | IO[bytes], directory: str) -> None:
        script = 'mkdir -p -- "$1" && exec tar --extract --file=- --no-same-owner --directory="$1"'
        completed = self.run(["sh", "-c", script, "sh", directory], timeout=_COPY_TIMEOUT, stdin=stream)
        if completed.exit_status != 0:
            printed = completed.stderr[-500:].decode(errors="replace").strip()
            raise InfrastructureError(f"cannot copy into the guest {self.name}: {printed}")

    def _lost(self) -> ProductError | InfrastructureError:
        """Why the connection broke; a guest that is shutting itself down gets a moment to be done with it."""
        deadline = time.monotonic() + _SETTLE
        while (state := self.state()) is State.RUNNING and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        if state is State.POWERED_OFF and self.isolation == "container":
            return GuestWentOff(f"the guest {self.name} went off, which may be its product's doing")
        if state is State.POWERED_OFF:
            return GuestPoweredOff(f"the guest {self.name} was switched off from inside")
        return GuestLost(f"the guest {self.name} is lost ({state.value})")

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(InfrastructureError):
            self.destroy()


def _write(stream: IO[bytes], chunk: bytes) -> None:
    stream.write(chunk)

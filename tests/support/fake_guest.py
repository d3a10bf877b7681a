"""A guest that does what a test says: the double of the boundary between a phase and a real guest."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from cleanroom_base.run import Completed, Output

# What a step does: it may print by calling the function, and returns its exit status or raises.
Behaviour = Callable[[Output], int]


def prints(text: str | bytes, status: int = 0) -> Behaviour:
    """A step that prints something and ends."""

    def behave(output: Output) -> int:
        output(text if isinstance(text, bytes) else text.encode())
        return status

    return behave


def raises(error: BaseException, text: str = "") -> Behaviour:
    """A step during which something happens to the guest."""

    def behave(output: Output) -> int:
        output(text.encode())
        raise error

    return behave


class FakeGuest:
    """Runs one behaviour a step; `files` are what the directories in it hold, by their path."""

    name = "guest-1"
    image = "debian-12"
    digest = "sha256:0"
    isolation = "container"
    method = "overlay"
    network = "mirror"
    reset_seconds = 0.5

    def __init__(self, steps: Sequence[Behaviour], files: Mapping[str, Sequence[Path]] | None = None) -> None:
        self._steps = list(steps)
        self._files = files or {}
        self.destroyed = False
        self.lost_something = False
        self.varying = 0
        self.commands: list[list[str]] = []
        self.listing = prints("base 1\n")
        self.sent: list[str] = []
        self.programs: dict[str, bytes] = {}
        self.environments: list[Mapping[str, str]] = []
        self.users: list[str] = []
        self.installed: dict[str, bytes] = {}
        self.asked_for: list[Sequence[str]] = []
        # The times to which its clock was set, each with how many steps had ended.
        self.clock: list[tuple[int, int]] = []

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        output: Output | None = None,
        stdin: bytes | IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        user: str = "root",
        directory: str | None = None,
        output_limit: int | None = None,
    ) -> Completed:
        assert not self.destroyed
        assert timeout >= 0
        if command[0] == "tar":
            self._receive(stdin)
            return Completed(tuple(command), 0, b"", b"", 0.0)
        if command[0] == "date":
            assert user == "root"
            self.clock.append((int(command[-1].partition("@")[2]), len(self.commands)))
            return Completed(tuple(command), 0, b"", b"", 0.0)
        if command[0] in ("dpkg-query", "rpm"):
            return Completed(tuple(command), 0, self.installed.get(command[0], b""), b"", 0.0)
        program = " ".join(command[2:]) if command[1] == "-c" else ""
        if "useradd" in program:
            return Completed(tuple(command), self.varying, b"", b"no useradd", 0.0)
        if "dpkg-query" in program:
            listed: list[bytes] = []
            return Completed(tuple(command), self.listing(listed.append), b"".join(listed), b"", 0.0)
        assert output is not None
        if command[1] == "-c" and "umask" not in program:
            self.asked_for.append(command)
            self._send_results(output)
            return Completed(tuple(command), 0, b"", b"", 0.0)
        self.commands.append(list(command))
        self.environments.append(environment or {})
        self.users.append(user)
        return Completed(tuple(command), self._steps.pop(0)(output), b"", b"", 0.0)

    def copy_out(self, source: str, destination: Path, *, limit: int) -> list[Path]:
        copies = []
        for file in self._files.get(source, ()):
            copy = destination / file.name
            shutil.copy2(file, copy, follow_symlinks=False)
            copies.append(copy)
        return copies

    def _send_results(self, output: Output) -> None:
        """The result files among `files`, as tar sends them."""
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for place, files in self._files.items():
                if place.startswith(("/cleanroom/results/", "/cleanroom/build/")):
                    tar.add(files[0], arcname=place.removeprefix("/cleanroom/"))
        output(stream.getvalue())

    def damaged(self) -> bool:
        return self.lost_something

    def dismiss(self) -> None:
        self.destroyed = True

    def _receive(self, stdin: bytes | IO[bytes] | None) -> None:
        assert stdin is not None
        assert not isinstance(stdin, bytes)
        with tarfile.open(fileobj=stdin) as tar:
            for member in tar:
                self.sent.append(member.name)
                content = tar.extractfile(member)
                if content is not None and "/steps/" in member.name:
                    self.programs[member.name] = content.read()

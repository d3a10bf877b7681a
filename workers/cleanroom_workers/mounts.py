"""Mounts: made and unmade by the system's own programs, listed from /proc."""

from __future__ import annotations

import re
from pathlib import Path

from cleanroom_base.run import run

_TIMEOUT = 60.0
_OCTAL = re.compile(r"\\([0-7]{3})")


def mounted(place: Path) -> bool:
    """Whether something is mounted at `place`."""
    return str(place) in _places()


def below(directory: Path) -> list[Path]:
    """Everything mounted below `directory`, the innermost first."""
    found = [Path(place) for place in _places() if place.startswith(f"{directory}/")]
    return sorted(found, key=lambda place: len(place.parts), reverse=True)


def mount(source: str | Path, place: Path, *, kind: str | None = None, options: str | None = None) -> None:
    """Mount `source` at `place`. Raises CommandError."""
    command: list[str | Path] = ["mount"]
    command += ["-t", kind] if kind else []
    command += ["-o", options] if options else []
    run([*command, source, place], timeout=_TIMEOUT)


def make_shared(directory: Path) -> bool:
    """Let mounts made below `directory` be seen in mount namespaces that are made from this one from now on.

    Returns whether there was anything to do.
    """
    if mounted(directory):
        return False
    mount(directory, directory, options="bind")
    run(["mount", "--make-shared", directory], timeout=_TIMEOUT)
    return True


def unmount(place: Path) -> None:
    """Unmount what is at `place`, now or as soon as its last user is gone. Raises CommandError."""
    run(["umount", "--lazy", place], timeout=_TIMEOUT)


def _places() -> list[str]:
    """All mount points; spaces and the like are octal there. Source: proc(5), /proc/[pid]/mountinfo."""
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as table:
        return [_OCTAL.sub(lambda code: chr(int(code[1], 8)), line.split()[4]) for line in table]

"""Control groups for what libvirt does not do: a bound on the number of processes, and a place of its own for the
systemd in each container.

Two layouts: one hierarchy for all controllers (version 2), where libvirt's own group of the container serves; or
one for each controller (version 1, also the "hybrid" layout), where groups are made beforehand and joined by
`container-keeper`. Source: the kernel's cgroup-v2.rst and cgroup-v1/pids.rst.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from cleanroom_base.errors import InfrastructureError

_ROOT = Path("/sys/fs/cgroup")
_END_TIMEOUT = 2.0
_PAUSE = 0.01


def separate() -> bool:
    """Whether every controller has a hierarchy of its own here."""
    return (_ROOT / "pids").is_dir()


def make(name: str, processes: int) -> None:
    """Make the groups that a container joins before its first process runs. Only for separate hierarchies."""
    for hierarchy in ("pids", "systemd"):
        if (_ROOT / hierarchy).is_dir():
            _group(hierarchy, name).mkdir(exist_ok=True)
    (_group("pids", name) / "pids.max").write_text(str(processes), encoding="ascii")


def limit(keeper: int, processes: int) -> None:
    """Bound the processes of a container, given libvirt's keeper of it. Only for the one hierarchy.

    Raises InfrastructureError when the container has no group of its own.
    """
    (_libvirts(keeper) / "pids.max").write_text(str(processes), encoding="ascii")


def bound(name: str, keeper: int) -> int:
    """How many processes a running container may have, given libvirt's keeper of it."""
    group = _group("pids", name) if separate() else _libvirts(keeper)
    return int((group / "pids.max").read_text(encoding="ascii"))


def remove(name: str) -> None:
    """Remove what `make` made and what the container made below; it has ended."""
    deadline = time.monotonic() + _END_TIMEOUT
    for hierarchy in ("pids", "systemd"):
        group = _group(hierarchy, name)
        # The last processes may still be on their way out.
        while group.is_dir() and not _removed(group) and time.monotonic() < deadline:
            time.sleep(_PAUSE)


def _removed(group: Path) -> bool:
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(directory).rmdir()
    return not group.exists()


def _group(hierarchy: str, name: str) -> Path:
    return _ROOT / hierarchy / f"cleanroom-{name}"


def _libvirts(keeper: int) -> Path:
    """The group that libvirt made for a container."""
    line = Path(f"/proc/{keeper}/cgroup").read_text(encoding="utf-8").strip()
    parts = line.removeprefix("0::/").split("/")
    # It is called machine-lxc..., or lies below "machine"; the container's own are further down.
    for depth, part in enumerate(parts):
        if part.startswith("machine-") or (depth and parts[depth - 1] == "machine"):
            return _ROOT.joinpath(*parts[: depth + 1])
    raise InfrastructureError(f"libvirt made no control group for the container: {line}")

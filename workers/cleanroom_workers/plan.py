"""What a guest is going to be: everything an isolation needs to know to start it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from cleanroom_images.store import Image
from cleanroom_workers.identity import Identity


@dataclass(frozen=True, slots=True)
class Limits:
    """What a guest may use: processors, memory and disk in MiB, processes."""

    processors: int
    memory: int
    disk: int
    processes: int


@dataclass(frozen=True, slots=True)
class Resumption:
    """What a machine goes on from instead of booting: a disk and a memory, of which it changes copies of its own."""

    disk: Path
    memory: Path


@dataclass(frozen=True, slots=True)
class Plan:
    """A guest to be started. `home` is the directory of its own files; `files` (path without the leading
    slash: mode, content) are given to it at its start, and they alone set it apart from its image and the tree
    `layer` that lies on it, if any. A machine from which a snapshot is to be taken has its disk and its memory as
    files in the directory `template`; one that is restored goes on from `resumption`."""

    name: str
    home: Path
    image: Image
    limits: Limits
    identity: Identity
    files: dict[str, tuple[int, bytes]]
    network: str
    device: str
    address: str
    gateway: str
    prefix: int
    first_user: int
    layer: Path | None = None
    template: Path | None = None
    resumption: Resumption | None = None

    @property
    def netmask(self) -> IPv4Address:
        """The network's mask as an address."""
        return IPv4Network((0, self.prefix)).netmask

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
class Plan:
    """A guest to be started. `home` is the directory of its own files; `files` (path without the leading
    slash: mode, content) are given to it at its start, and they alone set it apart from its image and the tree
    `layer` that lies on it, if any."""

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

    @property
    def netmask(self) -> IPv4Address:
        """The network's mask as an address."""
        return IPv4Network((0, self.prefix)).netmask

"""The ways to isolate a guest, behind one interface; `auto` takes the first that was seen to work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cleanroom_base.errors import InputError
from cleanroom_workers.container import Container
from cleanroom_workers.libvirt_access import Libvirt
from cleanroom_workers.machine import Machine
from cleanroom_workers.plan import Plan


class Isolation(Protocol):
    """One way to isolate a guest."""

    @property
    def driver(self) -> str:
        """The libvirt driver, `lxc` or `qemu`."""

    @property
    def method(self) -> str:
        """How a guest is reset."""

    @property
    def layered(self) -> bool:
        """Whether a guest can start from an image with a layer on it."""

    @property
    def files(self) -> Mapping[str, tuple[int, bytes]]:
        """What a guest is given besides its identity: path without the leading slash, mode and content."""

    @property
    def start_timeout(self) -> float:
        """The seconds in which a guest must answer."""

    def prepare(self, plan: Plan) -> None:
        """Make what the guest starts from, in its own directory."""

    def xml(self, plan: Plan) -> str:
        """The libvirt domain."""

    def limit(self, libvirt: Libvirt, plan: Plan) -> None:
        """Set the limits that libvirt does not know, right after the start."""

    def first_process(self, libvirt: Libvirt, name: str) -> int | None:
        """The process on the host with which the guest ends, where killing it is enough."""

    def end(self, libvirt: Libvirt, name: str) -> None:
        """End the guest at once, and have libvirt forget it."""

    def release(self, name: str) -> None:
        """Take away what `limit` made."""


# In the order of preference.
ISOLATIONS: dict[str, Isolation] = {
    "kvm": Machine("kvm", start_timeout=60.0),
    "container": Container(),
    "emulated": Machine("qemu", start_timeout=300.0),
}


def named(name: str) -> Isolation:
    """The isolation of that name. Raises InputError."""
    return ISOLATIONS[check(name)]


def check(name: str) -> str:
    """The name, if it is one of an isolation. Raises InputError."""
    if name not in ISOLATIONS:
        raise InputError(f"{name!r} is no isolation", hint=f"one of: auto, {', '.join(ISOLATIONS)}")
    return name

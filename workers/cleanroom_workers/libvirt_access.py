"""The one module that imports libvirt: its calls in our words, its errors as ours."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu

from cleanroom_base.errors import InfrastructureError

_PAUSE = 0.01
# In this time a machine that was told to write again has done so, in seconds.
_RETRY = 0.2
# Source: libvirt's domain XML format, consoles.
_TERMINAL = re.compile(r"<console type='pty' tty='([^']+)'")


class LibvirtError(InfrastructureError):
    """libvirt refused."""


class State(Enum):
    """What became of a guest."""

    RUNNING = "running"
    POWERED_OFF = "powered off"  # from inside
    CRASHED = "crashed"
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True)
class Interface:
    """One end of a guest's network connection, as libvirt's XML names it."""

    device: str
    mac: str


# libvirt prints every error by itself unless told otherwise; here they become exceptions.
libvirt.registerErrorHandler(lambda _context, _error: None, None)


def version() -> int:
    """libvirt's version as one number."""
    return int(libvirt.getVersion())


class Libvirt:
    """A connection to one driver of a libvirt daemon."""

    def __init__(self, uri: str) -> None:
        """Connect. Raises LibvirtError."""
        self.uri = uri
        with _translated(f"cannot connect to libvirt at {uri}"):
            self._connection = libvirt.open(uri)

    def close(self) -> None:
        """End the connection; guests run on."""
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.close()

    def alive(self) -> bool:
        """Whether the daemon still answers."""
        try:
            self._connection.getLibVersion()
            return bool(self._connection.isAlive())
        except libvirt.libvirtError:
            return False

    def start(self, xml: str, *, paused: bool = False) -> None:
        """Define and start a domain. It stays defined after its end, so that one can ask how it ended."""
        with _translated("cannot start the guest"):
            domain = self._connection.defineXML(xml)
            try:
                domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED if paused else 0)
            except libvirt.libvirtError:
                domain.undefine()
                raise

    def start_again(self, name: str) -> None:
        """Start the domain `name`, which has ended, as it was started before."""
        with _translated(f"cannot start {name} again"):
            self._connection.lookupByName(name).create()

    def memory(self, name: str) -> int:
        """The bytes of memory of the domain `name`."""
        with _translated(f"cannot ask how large {name} is"):
            return int(self._connection.lookupByName(name).maxMemory()) << 10

    def suspend(self, name: str) -> None:
        """Stop the processors of the domain `name`."""
        with _translated(f"cannot stop {name}"):
            self._connection.lookupByName(name).suspend()

    def resume(self, name: str) -> None:
        """Let the processors of the domain `name` go on."""
        with _translated(f"cannot let {name} go on"):
            self._connection.lookupByName(name).resume()

    def goes_on(self, name: str) -> bool:
        """Whether the domain `name` does not stand still because there was no room for what it wrote to its disk.

        One that does is told to try again first. Source: libvirt's domain XML format, error_policy, and QEMU's werror.
        """
        domain = self._domain(name)
        if domain is None:
            return True
        with _translated(f"cannot let {name} go on"):
            if _lacks_room(domain):
                domain.resume()
                time.sleep(_RETRY)
            return not _lacks_room(domain)

    def processor_seconds(self, name: str) -> float:
        """How long the domain `name` has kept processors busy."""
        with _translated(f"cannot ask how busy {name} is"):
            return float(self._connection.lookupByName(name).info()[4]) / 1e9

    def command(self, name: str, execute: str, *, file: int | None = None, **arguments: object) -> dict[str, object]:
        """Have QEMU execute a command of its machine protocol, which can do more than libvirt knows.

        `file` is an open file that goes with it. Source: QEMU's QMP reference. Raises LibvirtError.
        """
        result = self._ask(name, execute, file, arguments)
        return result if isinstance(result, dict) else {}

    def answers(self, name: str, execute: str) -> list[dict[str, Any]]:
        """What QEMU answers to a question that has a list of answers. Raises LibvirtError."""
        result = self._ask(name, execute, None, {})
        return result if isinstance(result, list) else []

    def _ask(self, name: str, execute: str, file: int | None, arguments: dict[str, object]) -> object:
        command = json.dumps({"execute": execute, "arguments": arguments})
        with _translated(f"QEMU did not {execute} for {name}"):
            domain = self._connection.lookupByName(name)
            if file is None:
                answer = libvirt_qemu.qemuMonitorCommand(domain, command, 0)
            else:
                answer, _ = libvirt_qemu.qemuMonitorCommandWithFiles(domain, command, [file], 0)
        content = json.loads(answer)
        if "error" in content:
            raise LibvirtError(f"QEMU did not {execute} for {name}: {content['error'].get('desc', answer)}")
        result: object = content.get("return")
        return result

    def state(self, name: str) -> State:
        """What became of the domain `name`; one that is not there was destroyed."""
        domain = self._domain(name)
        if domain is None:
            return State.DESTROYED
        with _translated(f"cannot ask for the state of {name}"):
            state, reason = domain.state()
        if state in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED):
            return _ENDED.get(reason, State.CRASHED) if state == libvirt.VIR_DOMAIN_SHUTOFF else State.CRASHED
        return State.RUNNING

    def wait_for_end(self, name: str, timeout: float) -> None:
        """Wait until libvirt noticed that the domain `name` ended, at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.state(name) is State.RUNNING and time.monotonic() < deadline:
            time.sleep(_PAUSE)

    def destroy(self, name: str) -> None:
        """End the domain `name` and forget it; nothing happens when it is not there."""
        domain = self._domain(name)
        if domain is None:
            return
        with contextlib.suppress(libvirt.libvirtError):
            domain.destroy()
        with _translated(f"cannot forget the guest {name}"):
            try:
                domain.undefine()
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise

    def names(self) -> list[str]:
        """The names of all domains, running or not."""
        with _translated("cannot list the guests"):
            return sorted(domain.name() for domain in self._connection.listAllDomains())

    def process(self, name: str) -> int | None:
        """The process number that libvirt keeps as the domain's id (containers: the container's keeper)."""
        domain = self._domain(name)
        identifier = -1 if domain is None else int(domain.ID())
        return identifier if identifier > 0 else None

    def console(self, name: str) -> Path | None:
        """The terminal on this host that is the console of the domain `name`; None while it does not run."""
        domain = self._domain(name)
        with _translated(f"cannot ask for the console of {name}"):
            if domain is None or not domain.isActive():
                return None
            found = _TERMINAL.search(domain.XMLDesc())
        return None if found is None else Path(found[1])

    def start_network(self, name: str, xml: str) -> None:
        """Have the network `name` run as described by `xml`; one that runs is left as it is."""
        with _translated(f"cannot start the network {name}"):
            if name in {network.name() for network in self._connection.listAllNetworks()}:
                network = self._connection.networkLookupByName(name)
                if network.isActive():
                    return
                network.undefine()
            self._connection.networkCreateXML(xml)

    def stop_network(self, name: str) -> None:
        """End the network `name`; nothing happens when it is not there."""
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.networkLookupByName(name).destroy()

    def _domain(self, name: str) -> libvirt.virDomain | None:
        try:
            return self._connection.lookupByName(name)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise LibvirtError(f"cannot ask for the guest {name}: {error}") from error


def _lacks_room(domain: libvirt.virDomain) -> bool:
    return list(domain.state()) == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR]


_ENDED = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: State.POWERED_OFF,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: State.DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN: State.DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: State.CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: State.CRASHED,
}


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        raise LibvirtError(f"{what}: {error}") from error

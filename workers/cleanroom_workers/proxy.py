"""The caching proxy through which guests reach package mirrors, and nothing but package mirrors.

apt-cacher-ng, run by us as an unprivileged user. It serves only what the images' own sources name: a guest
cannot use it to reach anything else. Mirrors over https cannot be cached; for them it passes connections on.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cleanroom_base.errors import InfrastructureError, InputError, TimedOut
from cleanroom_base.run import start
from cleanroom_base.settings import Settings
from cleanroom_workers import processes

_PORT = 3142
# It looks through its cache first, on a host that may be busy.
_START_TIMEOUT = 90.0
_STOP_TIMEOUT = 5.0
_PAUSE = 0.02
_URI = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~+/-]*)?")


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where guests find the proxy."""

    address: str
    port: int

    @property
    def url(self) -> str:
        """The proxy as apt wants it."""
        return f"http://{self.address}:{self.port}"


class CachingProxy:
    """The proxy of one installation: the one that is configured, or apt-cacher-ng run by us."""

    def __init__(self, settings: Settings) -> None:
        self._configured = settings.optional("network.mirror_proxy")
        self._directory = settings.state / "proxy"
        self._process_file = settings.runtime / "proxy.json"

    def ensure(self, gateway: str, mirrors: Iterable[str]) -> Proxy:
        """Have a proxy that serves these mirrors (and those it served before). The caller holds a lock.

        Raises InputError for a proxy that is configured wrongly, InfrastructureError.
        """
        if self._configured is not None:
            return _parse(self._configured)
        running = self._running()
        known = set(running[2]) if running else set()
        wanted = known | {mirror for mirror in mirrors if _URI.fullmatch(mirror)}
        if running is not None and running[3].address == gateway and wanted == known:
            return running[3]
        self.stop()
        proxy = Proxy(gateway, running[3].port if running else _free_port(gateway))
        self._start(proxy, sorted(wanted))
        return proxy

    def current(self) -> Proxy | None:
        """The proxy that guests use now; None when there is none. Raises as `ensure` does."""
        if self._configured is not None:
            return _parse(self._configured)
        running = self._running()
        return None if running is None else running[3]

    def stop(self) -> None:
        """End the proxy that we started, if any; its cache stays."""
        running = self._running()
        if running is not None:
            processes.end(running[0], since=running[1], timeout=_STOP_TIMEOUT)
        self._process_file.unlink(missing_ok=True)

    def _running(self) -> tuple[int, int, list[str], Proxy] | None:
        """The process that we started while it runs: its number, its start, its mirrors, and where it listens."""
        try:
            content = json.loads(self._process_file.read_text(encoding="utf-8"))
            number, since = content["process"], content["started"]
            proxy = Proxy(content["address"], content["port"])
            return (number, since, content["mirrors"], proxy) if processes.started(number) == since else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _start(self, proxy: Proxy, mirrors: list[str]) -> None:
        user = _account()
        for directory in (self._directory, self._directory / "cache", self._directory / "log"):
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            shutil.chown(directory, user)
        configuration = self._directory / "configuration"
        configuration.mkdir(exist_ok=True)
        text = configure(proxy, self._directory, mirrors, upstream=os.environ.get("http_proxy"))
        (configuration / "acng.conf").write_text(text, encoding="utf-8")
        log = self._directory / "proxy.log"
        process = start(["apt-cacher-ng", "-c", configuration], log=log, user=user)
        processes.keep(process)
        deadline = time.monotonic() + _START_TIMEOUT
        while not _listens(proxy):
            if process.poll() is not None:
                raise InfrastructureError(f"apt-cacher-ng did not start: {_end_of(log)}")
            if time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise TimedOut(f"apt-cacher-ng did not answer within {_START_TIMEOUT:.0f} s: {_end_of(log)}")
            time.sleep(_PAUSE)
        content = {
            "process": process.pid,
            "started": processes.started(process.pid),
            "address": proxy.address,
            "port": proxy.port,
            "mirrors": mirrors,
        }
        self._process_file.write_text(json.dumps(content), encoding="utf-8")


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-1000:].strip()


def configure(proxy: Proxy, directory: Path, mirrors: list[str], *, upstream: str | None) -> str:
    """apt-cacher-ng's configuration. Source: its manual, chapter "Advanced server configuration"."""
    lines = [
        f"CacheDir: {directory / 'cache'}",
        f"LogDir: {directory / 'log'}",
        "SupportDir: /usr/lib/apt-cacher-ng",
        f"BindAddress: {proxy.address}",
        f"Port: {proxy.port}",
        # By default all that run on a machine would share one.
        f"SocketPath: {directory / 'socket'}",
        "ForeGround: 1",
        # Nothing but what is remapped below may be asked for, and there are no pages for people.
        "ForceManaged: 1",
        "RedirMax: 5",
        *([f"Proxy: {upstream}"] if upstream else []),
    ]
    plain = [mirror for mirror in mirrors if mirror.startswith("http://")]
    lines += [f"Remap-mirror{index}: {mirror} ; {mirror}" for index, mirror in enumerate(plain)]
    secure = sorted({_host_and_port(mirror) for mirror in mirrors if mirror.startswith("https://")})
    # Something must be said here: what stands for nothing by default is a list of hosts.
    pattern = "|".join(re.escape(place) for place in secure) or "-"
    lines.append(f"PassThroughPattern: ^({pattern})$")
    return "\n".join(lines) + "\n"


def mirrors_of(tree: Path) -> set[str]:
    """The package mirrors that a root file system's apt sources name, in either format of sources.list(5)."""
    return set(_mirrors(tree / "etc/apt"))


def _mirrors(directory: Path) -> Iterator[str]:
    files = [directory / "sources.list", *sorted((directory / "sources.list.d").glob("*"))]
    for file in files:
        if file.is_symlink() or not file.is_file():
            continue
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("deb ", "deb-src ", "URIs:")):
                yield from (word.rstrip("/") for word in line.split() if _URI.fullmatch(word))


def _parse(url: str) -> Proxy:
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        raise InputError(f"network.mirror_proxy is {url!r}, which is no HTTP proxy", hint="http://HOST:PORT")
    try:
        address = socket.gethostbyname(parts.hostname)
    except OSError as error:
        raise InfrastructureError(f"cannot find the mirror proxy {parts.hostname}: {error}") from error
    if address.startswith("127."):
        raise InputError("network.mirror_proxy is an address that guests cannot reach (127.*)")
    return Proxy(address, parts.port or 80)


def _host_and_port(mirror: str) -> str:
    parts = urlsplit(mirror)
    return f"{parts.hostname}:{parts.port or 443}"


def _account() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "apt-cacher-ng" if "apt-cacher-ng" in names else "nobody"


def _free_port(address: str) -> int:
    """The usual port where it is free, else one of the next: it takes those above 32767 for negative numbers."""
    for port in range(_PORT, _PORT + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise InfrastructureError(f"no port is free at {address}")


def _listens(proxy: Proxy) -> bool:
    try:
        socket.create_connection((proxy.address, proxy.port), timeout=1).close()
    except OSError:
        return False
    return True

"""What is done to an installation while releases are on their way.

Each disturbance is a context: what comes before its `yield` happens before tags are pushed, what comes after, while
their releases are on their way; it returns once the disturbance is over, and gives back whether it really happened.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import boundaries
from live_site import LiveSite
from place import LEASE, Place

from cleanroom_db import cluster
from cleanroom_workers.proxy import CachingProxy

SERVICES = ("master", "worker", "publisher", "refs", "web", "notifications", "guests", "phases")
PAUSED = ("master", "worker", "phases", "publisher", "refs", "guests")
HOUR = 3600
# Until a boundary is reached, at most: it is given up a while after the releases that are to reach it have ended.
_REACHED = 600.0
_AFTERWARDS = 20.0
_FOUND = 300.0
# A service that lived so long has begun its work.
_STARTED = 8.0
# Between two of many kills, at most.
_BREATH = 2.0
_FULL = 5.0
_CUT = 10.0
_HELD = 15.0
_LOOK = 0.05
# Whether releases have ended is asked of the database.
_ASK = 0.3
_BLOCK = 1 << 20


@dataclass
class Scene:
    """Where a disturbance happens, and whose dice it throws. `ended`: the releases that meet it are at their end."""

    place: Place
    site: LiveSite
    chance: random.Random
    ended: Callable[[], bool]
    happened: bool = False
    # What did not happen of several things.
    missed: str = ""
    longest: float = 5.0

    def moment(self, longest: float | None = None) -> None:
        """Wait for some moment of a release's way."""
        time.sleep(self.chance.uniform(0, self.longest if longest is None else longest))

    def process(self, service: str) -> int | None:
        """The number of a service's process, once it has one; None if it does not come to run."""
        found: list[int] = []

        def look() -> bool:
            known = {one["name"]: one["process"] for one in services(self.site)}
            found.extend([known[service]] if known.get(service) and Path(f"/proc/{known[service]}").exists() else [])
            return bool(found)

        _until(look, _FOUND)
        return found[0] if found else None


@dataclass(frozen=True)
class Disturbance:
    """`kind` and `where` are what reports call it; `needs` is the kind of release that has to come by."""

    kind: str
    where: str
    apply: Callable[[Scene], AbstractContextManager[None]]
    needs: str = "any"


def everything() -> list[Disturbance]:
    """All that there is."""
    return [
        *(Disturbance("kill", service, _kill_of(service)) for service in SERVICES),
        *(Disturbance("kill", name, kill) for name, kill in _KILLS.items()),
        Disturbance("kill all", "one after the other", killed_all),
        *(Disturbance("boundary", one.place, _boundary_of(one), one.needs) for one in boundaries.BOUNDARIES),
        *(Disturbance("pause", service, _pause_of(service)) for service in PAUSED),
        *(Disturbance("database restarted", one.place, _restart_of(one), one.needs) for one in _TRANSACTIONS),
        Disturbance("full disk", "state", full_disk),
        Disturbance("mirror cut", "proxy stands still", still_mirror),
        Disturbance("mirror cut", "proxy is killed", killed_mirror),
        Disturbance("clock", "an hour back", clock_back),
    ]


def one_of_each(chance: random.Random, among: Sequence[Disturbance]) -> list[Disturbance]:
    """One of each kind, by chance."""
    kinds: dict[str, list[Disturbance]] = {}
    for one in among:
        kinds.setdefault(one.kind, []).append(one)
    return [chance.choice(found) for found in kinds.values()]


# -- killing -------------------------------------------------------------------------------------------------------


def _kill_of(service: str) -> Callable[[Scene], AbstractContextManager[None]]:
    @contextmanager
    def killed(scene: Scene) -> Iterator[None]:
        yield
        scene.moment()
        group = scene.process(service)
        if group is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
                scene.happened = True

    return killed


@contextmanager
def _killed_database(scene: Scene) -> Iterator[None]:
    """The server and all that it started, at once, as the machine's own end would."""
    yield
    scene.moment()
    server = _server(scene)
    if server is not None:
        for process in (server, *children(server)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        scene.happened = True


@contextmanager
def _killed_postmaster(scene: Scene) -> Iterator[None]:
    """The server's first process alone: those that it started find that out by themselves."""
    yield
    scene.moment()
    server = _server(scene)
    if server is not None:
        os.kill(server, signal.SIGKILL)
        scene.happened = True


@contextmanager
def _killed_libvirtd(scene: Scene) -> Iterator[None]:
    yield
    scene.moment()

    def strike() -> bool:
        with contextlib.suppress(OSError, ValueError):
            number = int((scene.site.settings.runtime / "libvirt/libvirtd.pid").read_text())
            # Nobody else who has the number of one that is gone.
            if b"libvirtd" in Path(f"/proc/{number}/cmdline").read_bytes():
                os.kill(number, signal.SIGKILL)
                scene.happened = True
        return scene.happened

    # It comes when a guest is wanted.
    _until(lambda: strike() or scene.ended(), _FOUND, pause=_ASK)


@contextmanager
def _killed_guest(scene: Scene) -> Iterator[None]:
    """The first process of a guest in which something runs."""
    yield

    def strike(record: dict[str, Any]) -> None:
        if record["first"] is not None:
            os.kill(record["first"]["process"], signal.SIGKILL)
            scene.happened = True

    _strike_one_in_use(scene, strike)


@contextmanager
def _killed_keeper(scene: Scene) -> Iterator[None]:
    """libvirt's own process that keeps a guest in which something runs."""
    yield

    def strike(record: dict[str, Any]) -> None:
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if Path(os.fsdecode(words[0])).name == "libvirt_lxc" and record["name"].encode() in words:
                    os.kill(int(entry.name), signal.SIGKILL)
                    scene.happened = True

    _strike_one_in_use(scene, strike)


def _strike_one_in_use(scene: Scene, strike: Callable[[dict[str, Any]], None]) -> None:
    """Strike at a guest in which something runs; where that one has just gone, at the next."""

    def struck() -> bool:
        records = _in_use(scene)
        if records:
            scene.moment(1.0)
            with contextlib.suppress(ProcessLookupError):
                strike(scene.chance.choice(records))
        return scene.happened

    _until(lambda: struck() or scene.ended(), _FOUND, pause=_ASK)


_KILLS: dict[str, Callable[[Scene], AbstractContextManager[None]]] = {
    "database": _killed_database,
    "the database's first process": _killed_postmaster,
    "libvirtd": _killed_libvirtd,
    "a guest": _killed_guest,
    "a guest's keeper": _killed_keeper,
}


@contextmanager
def killed_all(scene: Scene) -> Iterator[None]:
    """Every process once, while some of those that were killed before are still on their way back."""
    yield
    kills = {**{service: _kill_of(service) for service in SERVICES}, **_KILLS}
    order = scene.chance.sample(sorted(kills), len(kills))
    # Later, no guest may be in use any more.
    order.sort(key=lambda name: name not in _OF_GUESTS)
    missed = []
    for name in order:
        alone = replace(scene, happened=False, longest=_BREATH)
        with kills[name](alone):
            pass
        if not alone.happened:
            missed.append(name)
    scene.happened, scene.missed = not missed, ", ".join(missed)


_OF_GUESTS = ("a guest", "a guest's keeper")


# -- at boundaries -------------------------------------------------------------------------------------------------


def _boundary_of(boundary: boundaries.Boundary) -> Callable[[Scene], AbstractContextManager[None]]:
    @contextmanager
    def struck(scene: Scene) -> Iterator[None]:
        arm(scene.place, boundary, "kill")
        yield
        scene.happened = _struck(scene)
        disarm(scene.place)

    return struck


# In the middle of these the database is restarted, with the transaction open.
_TRANSACTIONS = [one for one in boundaries.BOUNDARIES if one.when == boundaries.IN_TRANSACTION]


def _restart_of(boundary: boundaries.Boundary) -> Callable[[Scene], AbstractContextManager[None]]:
    @contextmanager
    def restarted(scene: Scene) -> Iterator[None]:
        arm(scene.place, boundary, "hold", seconds=_HELD)
        yield
        scene.happened = _struck(scene)
        server = cluster.status(scene.site.settings).process_id
        if scene.happened and server is not None:
            # Its immediate shutdown: connections are cut, and the next start recovers from the log.
            os.kill(server, signal.SIGQUIT)
            _until(lambda: cluster.status(scene.site.settings).process_id != server, _FOUND)
        disarm(scene.place)

    return restarted


def arm(place: Place, boundary: boundaries.Boundary, action: str, *, seconds: float = 0.0) -> None:
    """Have the first process that comes to a boundary kill itself, or stand still until it is disarmed."""
    disarm(place)
    fresh = place.control / "fresh"
    fresh.write_text(json.dumps({"place": boundary.place, "action": action, "seconds": seconds}))
    fresh.rename(place.control / "armed")


def disarm(place: Place) -> None:
    """Let everybody pass."""
    for name in ("armed", "struck"):
        (place.control / name).unlink(missing_ok=True)


def _struck(scene: Scene) -> bool:
    """Wait until somebody came to the boundary, or nobody is to come any more."""
    struck = scene.place.control / "struck"
    _until(lambda: struck.exists() or scene.ended(), _REACHED, pause=_ASK)
    return _until(struck.exists, _AFTERWARDS)


# -- the others ----------------------------------------------------------------------------------------------------


def _pause_of(service: str) -> Callable[[Scene], AbstractContextManager[None]]:
    @contextmanager
    def paused(scene: Scene) -> Iterator[None]:
        yield
        scene.moment()
        group = scene.process(service)
        if group is None:
            return
        try:
            os.killpg(group, signal.SIGSTOP)
            scene.happened = True
            time.sleep(LEASE * 1.5)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGCONT)

    return paused


@contextmanager
def full_disk(scene: Scene) -> Iterator[None]:
    """Nothing is left free on the installation's disk for a while."""
    yield
    scene.moment()
    filler = scene.place.disk / "filler"
    try:
        deadline = time.monotonic() + _FULL
        _fill(filler)
        scene.happened = True
        while time.monotonic() < deadline:
            # What others give back is taken, too.
            _fill(filler)
            time.sleep(_LOOK)
    finally:
        filler.unlink(missing_ok=True)


def _fill(filler: Path) -> None:
    with filler.open("ab", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        block = 256 * _BLOCK
        while block >= 4096:
            try:
                os.posix_fallocate(file.fileno(), size, block)
                size += block
            except OSError:
                block //= 4


@contextmanager
def still_mirror(scene: Scene) -> Iterator[None]:
    """The proxy through which guests reach the mirror takes connections and says nothing."""
    yield
    process = _proxy(scene)
    if process is None:
        return
    try:
        os.kill(process, signal.SIGSTOP)
        scene.happened = True
        time.sleep(_CUT)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


@contextmanager
def killed_mirror(scene: Scene) -> Iterator[None]:
    """The proxy is gone."""
    yield
    scene.moment()
    process = _proxy(scene)
    if process is not None:
        os.kill(process, signal.SIGKILL)
        scene.happened = True


def _proxy(scene: Scene) -> int | None:
    if CachingProxy(scene.site.settings).current() is None:
        return None
    noted = json.loads((scene.site.settings.runtime / "proxy.json").read_text())
    return int(noted["process"])


@contextmanager
def clock_back(scene: Scene) -> Iterator[None]:
    """The installation's clock is set back by an hour while releases are on their way, and stays so for a while."""
    yield
    scene.moment()
    scene.place.set_clock(-HOUR)
    scene.happened = True


def clock_right(place: Place) -> None:
    """Set the clock right again, once the releases of a disturbance have come to their end."""
    place.set_clock(0)


# -- looking -------------------------------------------------------------------------------------------------------


def services(site: LiveSite) -> list[dict[str, Any]]:
    """What the supervisor says of the services: what `cleanroom status` shows, which takes a second of a processor."""
    with contextlib.suppress(OSError, ValueError):
        found: list[dict[str, Any]] = json.loads((site.state / "run/services.json").read_text())
        return found
    return []


def works(service: dict[str, Any]) -> bool:
    """Whether a service does its work: one that failed often lately is called failing for a minute, and works."""
    if service["state"] != "failing" or service["process"] is None:
        return bool(service["state"] == "running")
    return time.time() - datetime.fromisoformat(service["since"]).timestamp() > _STARTED


def children(process: int) -> Sequence[int]:
    """The processes that a process started, directly."""
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def _server(scene: Scene) -> int | None:
    """The number of the database server's first process, once it runs."""
    found: list[int] = []

    def look() -> bool:
        number = cluster.status(scene.site.settings).process_id
        found.extend([] if number is None else [number])
        return bool(found)

    _until(look, _FOUND)
    return found[0] if found else None


def _in_use(scene: Scene) -> list[dict[str, Any]]:
    """The records of the guests in which something runs."""
    found = []
    for file in (scene.site.state / "guests").glob("*/guest.json"):
        with contextlib.suppress(OSError, ValueError):
            record: dict[str, Any] = json.loads(file.read_text())
            if record["state"] == "running":
                found.append(record)
    return found


def _until(condition: Callable[[], bool], seconds: float, *, pause: float = _LOOK) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True

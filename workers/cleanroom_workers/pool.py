"""Guests that are kept ready: each is started before it is asked for, handed over once, and never used again.

Which kinds, and how many of each, follows from what was asked for lately. One process keeps the pool (`cleanroom-worker
pool`); whoever needs a guest takes one by changing its record under the guest's lock, and without that process
everybody starts guests of his own. It also takes away what is left of guests that were ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from cleanroom_base.errors import CleanroomError
from cleanroom_base.health import Pulse
from cleanroom_workers.locks import attempted
from cleanroom_workers.plan import Limits
from cleanroom_workers.records import GuestRecord

READY = "ready"
# So long a kind is kept ready after it was asked for, in seconds: a day, so that the morning's first is quick.
_REMEMBERED = 86400.0
# A ready guest is not kept longer: what it started from may be behind the times, the host's clock for one.
_OLDEST = 3600.0
_TAIL = 12
# So often a product's declaration must have been asked for before a layer is made of it.
_REPEATED = 2
# Of kinds that one product alone can use so many times the number are kept that is kept of another kind: a few products
# that take turns, each with two targets, would otherwise take each other's place every time.
_PRODUCTS = 2


@dataclass(frozen=True, slots=True)
class Kind:
    """What guests that can stand in for each other have in common. `isolation` is as it was asked for;
    `preparation` are programs that may have run in it before it is handed over, and `declared` further ones, which
    install what one product declares."""

    image: str
    isolation: str
    network: str
    limits: Limits
    preparation: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()

    @property
    def programs(self) -> tuple[str, ...]:
        """All that may have run in it, in this order."""
        return self.preparation + self.declared

    @property
    def key(self) -> str:
        """A short name that only this kind has."""
        content = json.dumps(asdict(self), sort_keys=True).encode()
        return hashlib.sha256(content).hexdigest()[:_TAIL]


@dataclass(frozen=True, slots=True)
class Wish:
    """A kind that was asked for: how many of it were used at once, when last (seconds since the epoch), and how often
    since a layer was made for it."""

    kind: Kind
    most: int
    at: float
    times: int = 1

    @property
    def repeated(self) -> bool:
        """Whether a layer would be of use again: what one product declares may never be asked for a second time."""
        return not self.kind.declared or self.times >= _REPEATED


class Demand:
    """What was asked for lately: a small file for each kind, so that it outlives every process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def note(self, kind: Kind, together: int) -> None:
        """A guest of a kind was asked for; with it, `together` of them are used now."""
        self._directory.mkdir(parents=True, exist_ok=True)
        file = self._directory / f"{kind.key}.json"
        before = self._read(file)
        if before is None or self._forgotten(before):
            before = Wish(kind, 0, 0.0, 0)
        self._write(file, Wish(kind, max(together, before.most), time.time(), before.times + 1))

    def layered(self, kind: Kind) -> None:
        """A layer was made for a kind: the next one only after it was asked for again."""
        file = self._directory / f"{kind.key}.json"
        wish = self._read(file)
        if wish is not None:
            self._write(file, replace(wish, times=1))

    def wishes(self) -> list[Wish]:
        """The kinds that are remembered, the latest first; what is forgotten is removed."""
        found = []
        for file in sorted(self._directory.glob("*.json")):
            wish = self._read(file)
            if wish is None or self._forgotten(wish):
                file.unlink(missing_ok=True)
            else:
                found.append(wish)
        return sorted(found, key=lambda wish: wish.at, reverse=True)

    def _write(self, file: Path, wish: Wish) -> None:
        temporary = file.with_suffix(f".{threading.get_native_id()}")
        temporary.write_text(json.dumps(asdict(wish)), encoding="utf-8")
        temporary.replace(file)

    def _read(self, file: Path) -> Wish | None:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            kind = content["kind"]
            programs = {name: tuple(kind[name]) for name in ("preparation", "declared")}
            parts = {**kind, "limits": Limits(**kind["limits"]), **programs}
            return Wish(Kind(**parts), content["most"], content["at"], content["times"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _forgotten(self, wish: Wish) -> bool:
        return wish.at + _REMEMBERED < time.time()


class Bell:
    """Wakes the pool's process. Nothing depends on it being heard: the pool also looks by itself."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def ring(self) -> None:
        """Wake it, if it is there."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
            bell.setblocking(False)
            bell.sendto(b"!", str(self._file))

    @contextlib.contextmanager
    def heard(self) -> Iterator[socket.socket]:
        """Hear it: gives a socket on which each ring is a datagram."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
            bell.bind(str(self._file))
            self._file.chmod(0o600)
            yield bell
        self._file.unlink(missing_ok=True)


class Holder(Protocol):
    """What the pool needs of the host."""

    def reap(self) -> list[str]:
        """Take away what nobody claims."""

    def ready(self) -> list[GuestRecord]:
        """The guests that are kept ready."""

    def outdated(self, records: Iterable[GuestRecord], kinds: Mapping[str, Kind]) -> list[GuestRecord]:
        """Those of them that are not what one would start now; `kinds` are those that are wanted, by their keys."""

    def lacks_layer(self, kind: Kind) -> bool:
        """Whether guests of a kind would be prepared sooner with a layer that is not there."""

    def has_layer(self, kind: Kind) -> bool:
        """Whether there is a layer with what a kind's product declares."""

    def prepare(self, kind: Kind) -> GuestRecord:
        """Start one more."""

    def discard(self, name: str) -> None:
        """End one that nobody took meanwhile."""


@dataclass(frozen=True, slots=True)
class Room:
    """The memory that ready guests must leave free, in MiB; and whether the disk has no room for anything new."""

    reserve: int
    disk_low: Callable[[], bool] = lambda: False

    def for_one_more(self, kind: Kind) -> bool:
        """Whether one more guest may be kept ready: what it may grow to must still be free when it is used."""
        return available() >= self.reserve + kind.limits.memory and not self.disk_low()

    def tight(self) -> bool:
        """Whether ready guests should make way."""
        return available() < self.reserve


class Maker(Protocol):
    """Who makes layers."""

    def tend(self, missing: Iterable[Kind]) -> Iterator[str]:
        """See to it that what is missing is being made; say in words what was done."""


class Pool:
    """Keeps the ready guests of a host."""

    def __init__(self, holder: Holder, demand: Demand, room: Room, most: int, maker: Maker) -> None:
        """`most` bounds how many of each kind are kept."""
        self._maker = maker
        self._holder = holder
        self._demand = demand
        self._room = room
        self._most = most
        self._born: dict[str, float] = {}
        self._failed: dict[str, float] = {}

    def wanted(self) -> dict[Kind, int]:
        """How many ready guests of which kind there should be, the last one asked for first.

        Products are many: of those kinds that only one of them can use, twice as many guests are kept in all as of
        another kind alone, and only where there is a layer; without it any guest would do as well.
        """
        wanted = {}
        left = _PRODUCTS * self._most
        for wish in self._demand.wishes():
            number = min(wish.most, self._most)
            if wish.kind.declared:
                number = min(number, left)
                if number == 0 or not self._holder.has_layer(wish.kind):
                    continue
                left -= number
            wanted[wish.kind] = number
        return wanted

    def tend(self) -> Iterator[str]:
        """Do what is to be done, one thing at a time, and say in words what was done."""
        for name in self._holder.reap():
            yield f"ended {name}, which nobody claims"
        repeated = (wish.kind for wish in self._demand.wishes() if wish.repeated)
        if not self._room.disk_low():
            yield from self._maker.tend(filter(self._holder.lacks_layer, repeated))
        ready = self._holder.ready()
        for record, why in self._superfluous(ready):
            self._holder.discard(record.name)
            self._born.pop(record.name, None)
            yield f"ended {record.name}: {why}"
        have = [record.kind for record in self._holder.ready()]
        for kind, number in self.wanted().items():
            for _ in range(number - have.count(kind.key)):
                if self._failed.get(kind.key, 0.0) > time.monotonic() or not self._room.for_one_more(kind):
                    break
                yield self._prepare(kind)

    def _prepare(self, kind: Kind) -> str:
        try:
            record = self._holder.prepare(kind)
        except CleanroomError as error:
            # Whoever needs such a guest will hear of it; here it is tried again later.
            self._failed[kind.key] = time.monotonic() + 60.0
            return f"no guest of {kind.image} can be kept ready: {error.message}"
        self._born[record.name] = time.monotonic()
        return f"{record.name} is ready after {record.reset_seconds} s"

    def _superfluous(self, ready: list[GuestRecord]) -> Iterator[tuple[GuestRecord, str]]:
        numbers = self.wanted()
        kinds = {kind.key: kind for kind in numbers}
        wanted = {kind.key: number for kind, number in numbers.items()}
        outdated = {record.name for record in self._holder.outdated(ready, kinds)}
        for record in sorted(ready, key=lambda record: record.started_at):
            number = wanted.get(record.kind or "", 0)
            wanted[record.kind or ""] = number - 1
            if record.name in outdated:
                yield record, "what it started from has changed"
            elif self._room.tight():
                yield record, "memory is short"
            elif number <= 0:
                yield record, "nobody asked for its kind lately"
            elif self._born.get(record.name, time.monotonic()) + _OLDEST < time.monotonic():
                yield record, "it is old"


class Tended(Protocol):
    """What is looked after."""

    def tend(self) -> Iterator[str]:
        """Do what is to be done, and say in words what was done."""


def watch(
    all_tended: Sequence[Tended], bell: socket.socket, *, pause: float, ended: list[int], pulse: Pulse
) -> Iterator[str]:
    """Tend the pool and whatever else until `ended` is not empty: whenever the bell rings, and after every pause
    (seconds). `pulse` is told that this goes on."""
    while not ended:
        for done in (done for tended in all_tended for done in tended.tend()):
            pulse.turn("nothing: it works", within=0)
            yield done
            if ended:
                return
        pulse.turn("whoever takes a guest, or the next look", within=pause)
        bell.settimeout(pause)
        with contextlib.suppress(TimeoutError, InterruptedError):
            bell.recv(1)
        bell.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while bell.recv(1):
                pass


def available() -> int:
    """The memory in MiB that programs can be given without swapping."""
    return memory("MemAvailable")


def memory(word: str) -> int:
    """A line of the kernel's account of memory, in MiB. Source: proc(5), /proc/meminfo."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{word}:"):
            return int(line.split()[1]) >> 10
    return 0


def kept(file: Path) -> bool:
    """Whether a process keeps the pool: it holds the lock `file` as long as it lives."""
    with attempted(file) as free:
        return not free

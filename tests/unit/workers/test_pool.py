"""Which guests are kept ready: decided from what was asked for, what is there, and the memory that is free."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.health import Pulse
from cleanroom_workers import pool
from cleanroom_workers.plan import Limits
from cleanroom_workers.pool import READY, Bell, Demand, Kind, Pool, Room, watch
from cleanroom_workers.records import GuestRecord, Owner

LIMITS = Limits(processors=1, memory=1, disk=512, processes=64)
BOOKWORM = Kind("debian-12", "auto", "mirror", LIMITS)
TRIXIE = Kind("debian-13", "auto", "none", LIMITS)


def record(name: str, kind: Kind) -> GuestRecord:
    return GuestRecord(
        name=name,
        image=kind.image,
        digest="d",
        isolation="container",
        method="overlay",
        network=kind.network,
        address="10.0.0.2",
        mac="52:54:00:00:00:01",
        device="tap",
        started_at=name,
        state=READY,
        owner=Owner.current(),
        reset_seconds=0.5,
        kind=kind.key,
    )


class FakeHost:
    """A host that only remembers."""

    def __init__(self) -> None:
        self.guests: dict[str, GuestRecord] = {}
        self.old: set[str] = set()
        self.unclaimed: list[str] = []
        self.broken: set[Kind] = set()
        self.layered: set[Kind] = set()
        self.tried = 0

    def reap(self) -> list[str]:
        reaped, self.unclaimed = self.unclaimed, []
        return reaped

    def ready(self) -> list[GuestRecord]:
        return list(self.guests.values())

    def lacks_layer(self, kind: Kind) -> bool:
        return bool(kind.programs) and kind not in self.layered

    def has_layer(self, kind: Kind) -> bool:
        return kind in self.layered

    def outdated(self, records: Iterable[GuestRecord], kinds: Mapping[str, Kind]) -> list[GuestRecord]:
        assert all(record.kind in kinds or record.kind for record in records)
        return [found for found in records if found.name in self.old]

    def prepare(self, kind: Kind) -> GuestRecord:
        self.tried += 1
        if kind in self.broken:
            raise InfrastructureError("no room")
        made = record(f"{kind.image}-{self.tried}", kind)
        self.guests[made.name] = made
        return made

    def discard(self, name: str) -> None:
        del self.guests[name]

    def kinds(self) -> list[str | None]:
        return sorted(found.image for found in self.guests.values())


class FakeMaker:
    """Makes nothing, and notes what it should."""

    def __init__(self) -> None:
        self.missing: list[Kind] = []

    def tend(self, missing: Iterable[Kind]) -> Iterator[str]:
        self.missing = list(missing)
        yield from ()


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def demand(tmp_path: Path) -> Demand:
    return Demand(tmp_path / "pool")


def tended(host: FakeHost, demand: Demand, *, reserve: int = 0, most: int = 4) -> list[str]:
    return list(Pool(host, demand, Room(reserve), most, FakeMaker()).tend())


def test_nothing_is_kept_that_nobody_asked_for(host: FakeHost, demand: Demand) -> None:
    assert tended(host, demand) == []
    assert host.tried == 0


def test_as_many_are_kept_as_were_used_at_once_up_to_the_bound(host: FakeHost, demand: Demand) -> None:
    demand.note(BOOKWORM, 3)
    demand.note(BOOKWORM, 1)
    demand.note(TRIXIE, 9)
    tended(host, demand, most=4)
    assert host.kinds() == ["debian-12"] * 3 + ["debian-13"] * 4


def test_a_taken_one_is_replaced(host: FakeHost, demand: Demand) -> None:
    demand.note(BOOKWORM, 1)
    tended(host, demand)
    host.guests.clear()
    tended(host, demand)
    assert host.kinds() == ["debian-12"]
    assert tended(host, demand) == []


def test_what_is_forgotten_is_kept_no_more(host: FakeHost, demand: Demand, monkeypatch: pytest.MonkeyPatch) -> None:
    demand.note(BOOKWORM, 1)
    tended(host, demand)
    monkeypatch.setattr(pool, "_REMEMBERED", -1.0)
    (said,) = tended(host, demand)
    assert "nobody asked" in said
    assert host.guests == {}


def test_one_that_is_outdated_is_replaced(host: FakeHost, demand: Demand) -> None:
    demand.note(BOOKWORM, 1)
    tended(host, demand)
    (before,) = host.guests
    host.old.add(before)
    tended(host, demand)
    assert host.kinds() == ["debian-12"]
    assert before not in host.guests


def test_where_memory_is_short_none_is_made_and_those_there_make_way(host: FakeHost, demand: Demand) -> None:
    demand.note(BOOKWORM, 1)
    tended(host, demand)
    more_than_there_is = 1 << 40
    (said,) = tended(host, demand, reserve=more_than_there_is)
    assert "memory is short" in said
    assert host.guests == {}
    assert tended(host, demand, reserve=more_than_there_is) == []


def test_what_a_guest_may_grow_to_must_be_free(host: FakeHost, demand: Demand) -> None:
    demand.note(replace(BOOKWORM, limits=replace(LIMITS, memory=1 << 40)), 1)
    demand.note(BOOKWORM, 1)
    tended(host, demand)
    assert len(host.guests) == 1


def test_a_kind_that_cannot_be_made_keeps_no_other_and_is_not_tried_at_once_again(
    host: FakeHost, demand: Demand
) -> None:
    demand.note(BOOKWORM, 2)
    demand.note(TRIXIE, 1)
    host.broken.add(BOOKWORM)
    kept = Pool(host, demand, Room(0), 4, FakeMaker())
    said = list(kept.tend())
    assert any("no room" in line for line in said)
    assert host.kinds() == ["debian-13"]
    assert list(kept.tend()) == []
    host.broken.clear()
    tended(host, demand)
    assert host.kinds() == ["debian-12", "debian-12", "debian-13"]


def test_layers_are_asked_for_where_they_are_missing(host: FakeHost, demand: Demand) -> None:
    prepared = replace(BOOKWORM, preparation=("apt-get update",))
    demand.note(prepared, 1)
    demand.note(TRIXIE, 1)
    maker = FakeMaker()
    list(Pool(host, demand, Room(0), 4, maker).tend())
    assert maker.missing == [prepared]
    assert host.kinds() == ["debian-12", "debian-13"]


def test_a_layer_of_what_a_product_declares_is_made_once_it_was_asked_for_again(host: FakeHost, demand: Demand) -> None:
    own = replace(BOOKWORM, preparation=("apt-get update",), declared=("apt-get install bc",))
    maker = FakeMaker()
    kept = Pool(host, demand, Room(0), 4, maker)
    demand.note(own, 1)
    list(kept.tend())
    assert maker.missing == []
    demand.note(own, 1)
    list(kept.tend())
    assert maker.missing == [own]
    # An old layer is made anew only where it was of use.
    demand.layered(own)
    list(kept.tend())
    assert maker.missing == []
    demand.note(own, 1)
    list(kept.tend())
    assert maker.missing == [own]


def test_of_the_kinds_of_products_twice_as_many_are_kept_in_all_as_of_another_alone(
    host: FakeHost, demand: Demand
) -> None:
    own = [replace(BOOKWORM, image=f"own-{number}", declared=(f"install {number}",)) for number in range(5)]
    for kind in own:
        demand.note(kind, 3)
    demand.note(TRIXIE, 2)
    tended(host, demand, most=4)
    # Without a layer a guest of a product's own would be no better than any other.
    assert host.kinds() == ["debian-13"] * 2
    host.layered.update(own[:4])
    tended(host, demand, most=4)
    assert host.kinds() == ["debian-13"] * 2 + ["own-1"] * 2 + ["own-2"] * 3 + ["own-3"] * 3
    host.layered.clear()
    tended(host, demand, most=4)
    assert host.kinds() == ["debian-13"] * 2


def test_what_nobody_claims_is_told(host: FakeHost, demand: Demand) -> None:
    host.unclaimed.append("lost")
    assert tended(host, demand) == ["ended lost, which nobody claims"]


def test_a_damaged_note_is_no_demand(demand: Demand, tmp_path: Path) -> None:
    demand.note(BOOKWORM, 2)
    demand.note(TRIXIE, 1)
    (tmp_path / "pool" / f"{BOOKWORM.key}.json").write_text('{"kind": {"image"')
    assert [wish.kind for wish in demand.wishes()] == [TRIXIE]


def test_the_bell_wakes_and_a_missing_pool_is_no_matter(host: FakeHost, demand: Demand, tmp_path: Path) -> None:
    bell, pulse = Bell(tmp_path / "bell"), Pulse("guests")
    bell.ring()
    demand.note(BOOKWORM, 1)
    ended: list[int] = []
    with bell.heard() as heard:
        for _ in watch([Pool(host, demand, Room(0), 1, FakeMaker())], heard, pause=0.01, ended=ended, pulse=pulse):
            break
        bell.ring()
        bell.ring()
        # With a pause of an hour, only the bell can end this.
        watching = watch([Pool(host, demand, Room(0), 1, FakeMaker())], heard, pause=3600, ended=ended, pulse=pulse)
        host.guests.clear()
        assert "is ready" in next(watching)
        host.guests.clear()
        assert "is ready" in next(watching)
        ended.append(signal.SIGTERM)
        assert list(watching) == []
    assert pulse.report()["loops"][0]["turns"] > 2
    assert not (tmp_path / "bell").exists()


def test_kinds_with_any_difference_have_different_keys() -> None:
    others = [
        BOOKWORM,
        replace(BOOKWORM, image="debian-13"),
        replace(BOOKWORM, isolation="container"),
        replace(BOOKWORM, network="none"),
        replace(BOOKWORM, preparation=("apt-get update",)),
        replace(BOOKWORM, declared=("apt-get update",)),
        replace(BOOKWORM, limits=replace(LIMITS, disk=1024)),
    ]
    assert len({kind.key for kind in others}) == len(others)


def test_who_rings_does_not_wait_for_a_pool_that_is_busy(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "bell")
    with bell.heard() as heard:
        for _ in range(10_000):
            bell.ring()
        assert isinstance(heard, socket.socket)
        assert heard.recv(1) == b"!"

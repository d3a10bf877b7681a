"""Which layers are used, which go, and when one that could not be made is tried again."""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path

import pytest
from plans import plan

from cleanroom_base.errors import TimedOut
from cleanroom_images.store import Image
from cleanroom_workers import layer_maker, layers
from cleanroom_workers.layer_maker import LayerMaker
from cleanroom_workers.layers import Layers
from cleanroom_workers.plan import Limits
from cleanroom_workers.pool import Kind

HOUR = 3600.0
KIND = Kind("debian-12", "auto", "mirror", Limits(1, 1, 512, 64), declared=("false",))


def nobody() -> set[str]:
    return set()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory = tmp_path / "layers"
    directory.mkdir()
    return directory


def layer(
    place: Path, name: str, *, age: float = 0.0, unused: float = 0.0, declared: bool = True, size: int = 1
) -> str:
    """A layer that was made and last used so many seconds ago."""
    (place / name / "tree").mkdir(parents=True)
    (place / name / "manifest").touch()
    seal = place / name / "layer.json"
    made_at = time.time() - age + 1.0
    seal.write_text(json.dumps({"made_at": made_at, "image": "d", "declared": declared, "size": size}))
    os.utime(seal, (time.time() - unused,) * 2)
    return name


def left(place: Path) -> set[str]:
    return {entry.name for entry in place.glob("*") if entry.name != ".choosing"}


def test_old_layers_of_products_go_and_no_others(place: Path) -> None:
    layer(place, "old-1", age=7 * HOUR)
    used = layer(place, "used-1", age=7 * HOUR)
    young = layer(place, "young-1", age=5 * HOUR)
    common = layer(place, "common-1", age=7 * HOUR, declared=False)
    Layers(place).bound(lambda: {used}, time.time() - 6 * HOUR)
    assert left(place) == {used, young, common}


def test_of_too_many_the_least_recently_used_go(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_MOST", 2)
    for number in range(4):
        layer(place, f"own{number}-1", unused=(2 - number) % 4)
    layer(place, "common-1", unused=HOUR, declared=False)
    Layers(place).bound(nobody, 0.0)
    assert left(place) == {"own2-1", "own1-1", "common-1"}
    # Use keeps a layer.
    found = layers._read(place / "own1-1")
    assert found is not None
    Layers(place).used(found)
    layer(place, "own4-1")
    Layers(place).bound(nobody, 0.0)
    assert left(place) == {"own1-1", "own4-1", "common-1"}


def test_of_too_large_ones_the_least_recently_used_go(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_DISK", 0.0)
    layer(place, "own0-1", unused=9)
    layer(place, "own1-1", unused=1)
    layer(place, "common-1", unused=HOUR, declared=False, size=10)
    Layers(place).bound(nobody, 0.0)
    assert left(place) == {"own1-1", "common-1"}


def test_an_old_layer_is_not_found_where_a_young_one_is_wanted(place: Path, tmp_path: Path) -> None:
    image: Image = plan(tmp_path).image
    key = layers._key(image, ("program",))
    name = layer(place, f"{key}-1")
    found = Layers(place).find(image, ("program",))
    assert found is not None
    assert found.name == name
    assert Layers(place).find(image, ("program",), time.time() + HOUR) is None
    assert Layers(place).find(image, ("program", "another")) is None
    assert found.method == f"overlay on layer {key[:8]} with build dependencies"


def test_nothing_goes_while_somebody_chooses(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_LOCK_TIMEOUT", 0.05)
    layer(place, "old-1", age=7 * HOUR)
    choosing = Layers(place)
    with choosing.choosing(), pytest.raises(TimedOut):
        Layers(place).bound(nobody, time.time())
    assert left(place) == {"old-1"}


def test_what_cannot_be_made_is_tried_again_after_longer_and_longer_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "programs/cleanroom-worker"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(layer_maker, "_PAUSE", 0.1)
    maker = LayerMaker(tmp_path / "logs/log")
    failed: list[float] = []
    deadline = time.monotonic() + 20
    while len(failed) < 4 and time.monotonic() < deadline:
        failed += [time.monotonic() for line in maker.tend([KIND]) if "could not be made" in line]
        time.sleep(0.01)
    pauses = [after - before for before, after in itertools.pairwise(failed)]
    assert [pause > least for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=True)] == [True] * 3
    assert (tmp_path / "told").read_text().splitlines() == [f"layer {KIND.key}"] * 4

"""What is done to images by itself: by a program of its own, when it is time, and not again at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cleanroom_images.catalogue import Catalogue
from cleanroom_workers import chore
from cleanroom_workers.chore import Chore

HOUR = 3600


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """With two images that were built 30 hours ago, one of them from a description."""
    for name in ("described", "imported"):
        home = tmp_path / "state/images" / name
        home.mkdir(parents=True)
        (home / "current").symlink_to("digest")
        os.utime(home / "current", (time.time() - 30 * HOUR,) * 2, follow_symlinks=False)
    folder = tmp_path / "site/guest_images/described"
    folder.mkdir(parents=True)
    (folder / "image.toml").write_text("nonsense")
    return Catalogue(tmp_path / "state", tmp_path / "site")


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in which the fake program notes what it was told, and that it was asked to end."""
    program = tmp_path / "programs/cleanroom-worker"
    program.parent.mkdir()
    note = tmp_path / "told"
    program.write_text(
        f'#!/bin/sh\ntrap "echo ended >> {note}; exit 3" TERM\necho "$@" >> {note}\n'
        f"while [ ! -e {tmp_path}/done ]; do sleep 0.02; done\nexit 3\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return note


def until_tended(tended: Chore, word: str) -> list[str]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        said = list(tended.tend())
        if any(word in line for line in said):
            return said
        time.sleep(0.02)
    raise AssertionError(f"nothing said {word!r}")


def test_what_is_due_is_refreshed_once(catalogue: Catalogue, told: Path, tmp_path: Path) -> None:
    refreshing = chore.refresh(catalogue, 24, tmp_path)
    assert list(refreshing.tend()) == ["refresh of described"]
    assert list(refreshing.tend()) == []
    (tmp_path / "done").touch()
    assert until_tended(refreshing, "well") == ["refresh did not go well for all images: see refresh.log"]
    assert told.read_text() == "refresh described\n"
    assert list(refreshing.tend()) == []


def test_all_images_are_verified_once(catalogue: Catalogue, told: Path, tmp_path: Path) -> None:
    verifying = chore.verify(catalogue, 24, tmp_path)
    assert list(verifying.tend()) == ["verify of described, imported"]
    (tmp_path / "done").touch()
    assert until_tended(verifying, "well") == ["verify did not go well for all images: see verify.log"]
    assert told.read_text() == "verify described imported\n"
    assert list(verifying.tend()) == []


@pytest.mark.parametrize("kind", [chore.refresh, chore.verify])
def test_nothing_is_done_that_is_not_due_or_not_wanted(
    kind: Callable[[Catalogue, float, Path], Chore], catalogue: Catalogue, told: Path, tmp_path: Path
) -> None:
    for hours in (31, 0):
        assert list(kind(catalogue, hours, tmp_path).tend()) == []
    assert not told.exists()


def test_it_ends_with_the_pool(catalogue: Catalogue, told: Path, tmp_path: Path) -> None:
    refreshing = chore.refresh(catalogue, 24, tmp_path)
    list(refreshing.tend())
    deadline = time.monotonic() + 20
    while not told.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    refreshing.end()
    assert told.read_text() == "refresh described\nended\n"

"""When images are refreshed by themselves: by a program of its own, when one is due, and not again at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cleanroom_images.catalogue import Catalogue
from cleanroom_workers.refresh import Refresher

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


def until_tended(refresher: Refresher, word: str) -> list[str]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        said = list(refresher.tend())
        if any(word in line for line in said):
            return said
        time.sleep(0.02)
    raise AssertionError(f"nothing said {word!r}")


def test_what_is_due_is_refreshed_once(catalogue: Catalogue, told: Path, tmp_path: Path) -> None:
    refresher = Refresher(catalogue, 24, tmp_path / "log")
    assert list(refresher.tend()) == ["refreshing described"]
    assert list(refresher.tend()) == []
    (tmp_path / "done").touch()
    assert until_tended(refresher, "not all") == ["not all images could be refreshed: see log"]
    assert told.read_text() == "refresh described\n"
    assert list(refresher.tend()) == []


def test_nothing_is_refreshed_that_is_not_due_or_not_wanted(catalogue: Catalogue, told: Path, tmp_path: Path) -> None:
    for hours in (31, 0):
        assert list(Refresher(catalogue, hours, tmp_path / "log").tend()) == []
    assert not told.exists()


def test_it_ends_with_the_pool(catalogue: Catalogue, told: Path, tmp_path: Path) -> None:
    refresher = Refresher(catalogue, 24, tmp_path / "log")
    list(refresher.tend())
    deadline = time.monotonic() + 20
    while not told.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    refresher.end()
    assert told.read_text() == "refresh described\nended\n"

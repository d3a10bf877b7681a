"""What a host has not used for long goes, by a program of its own; what it uses stays."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from cleanroom_base.settings import Settings, load
from cleanroom_workers import command
from cleanroom_workers.housekeeping import Housekeeper, keep_house

LONG_AGO = time.time() - 100 * 86_400


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A host with builds and cached packages, half of them old."""
    variables = {"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path)}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in ("hello__debian-12_deb", "gone__debian-12_deb"):
        build = tmp_path / "worker" / name / "build"
        build.mkdir(parents=True)
        (build / "source.tar").write_bytes(b"x" * 5000)
    (tmp_path / "worker/info").mkdir()
    os.utime(tmp_path / "worker/gone__debian-12_deb/build", (LONG_AGO, LONG_AGO))
    cache = tmp_path / "proxy/cache/debian/pool"
    cache.mkdir(parents=True)
    for name in ("old.deb", "new.deb"):
        (cache / name).write_bytes(b"x" * 5000)
    return load(variables)


def left(site: Settings) -> list[str]:
    return sorted(path.name for path in site.state.rglob("*") if path.suffix == ".deb" or path.parent.name == "worker")


def test_what_was_not_used_for_long_goes(site: Settings) -> None:
    # A file system notes when a file changes its state, and no program can set that back.
    dry = keep_house(site, remove=False)
    assert {one.what: one.number for one in dry} == {"work directories": 1, "cached packages": 0}
    assert dry[0].size >= 5000
    assert left(site) == ["gone__debian-12_deb", "hello__debian-12_deb", "info", "new.deb", "old.deb"]
    assert keep_house(site, remove=True) == dry
    assert left(site) == ["hello__debian-12_deb", "info", "new.deb", "old.deb"]
    assert keep_house(site, remove=True)[0].number == 0


def test_cached_packages_go_by_when_they_were_brought_or_read(site: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time() + 31 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    os.utime(site.state / "proxy/cache/debian/pool/new.deb", (later, later))
    assert {one.what: one.number for one in keep_house(site, remove=True)}["cached packages"] == 1
    assert "old.deb" not in left(site)
    assert "new.deb" in left(site)


def test_the_command_says_what_it_did(site: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["housekeeping", "--dry-run"]) == 0
    assert [one["number"] for one in json.loads(capsys.readouterr().out)] == [1, 0]


def test_it_is_done_by_a_program_of_its_own_when_it_is_time(
    site: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin/cleanroom-worker"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho $* >>{tmp_path}/asked\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    keeper = Housekeeper(site)
    assert list(keeper.tend()) == []
    os.utime(tmp_path / "run/housekeeping-host", (LONG_AGO, LONG_AGO))
    assert list(keeper.tend()) == ["housekeeping"]
    deadline = time.monotonic() + 30
    while not (tmp_path / "asked").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (tmp_path / "asked").read_text() == "housekeeping\n"
    assert list(keeper.tend()) == []
    keeper.end()

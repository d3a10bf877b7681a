"""Room on the disk: how much is wanted, and that whoever wants it waits for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cleanroom_base.settings import Settings, load
from cleanroom_workers import room

# In MiB: more than any disk has. A share of it, however large, is free where the disk was never used.
MORE_THAN_THERE_IS = "1000000000"


@pytest.fixture
def site(tmp_path: Path) -> Callable[[str], Settings]:
    """A site that wants so much free."""
    settings = load({"CLEANROOM_STATE": str(tmp_path / "not/there/yet"), "CLEANROOM_SITE": str(tmp_path)})
    return lambda least: replace(settings, values={**settings.values, "storage.minimum_free": least})


def test_the_file_system_of_the_state_is_looked_at(site: Callable[[str], Settings]) -> None:
    found = room.look(site("10%"))
    assert 0 < found.least <= found.total // 10
    assert room.look(site(MORE_THAN_THERE_IS)).low
    assert not room.look(site("0")).low
    with pytest.raises(room.DiskFull, match="cleanroom housekeeping"):
        room.check(site(MORE_THAN_THERE_IS))
    room.check(site("0"))


def test_who_waits_for_room_goes_on_when_it_is_there(
    site: Callable[[str], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not room.wait(site(MORE_THAN_THERE_IS), 0.01, pause=0.01)
    # The kernel's answer about the disk cannot be had otherwise without filling it.
    answers = iter([1 << 20, 2 << 20, 2000 << 20])
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=next(answers), total=10_000 << 20))
    assert room.wait(site("1024"), 60, pause=0.01)
    assert list(answers) == []

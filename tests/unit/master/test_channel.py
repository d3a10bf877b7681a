"""What of the published repository guests are told of."""

from __future__ import annotations

from pathlib import Path

from cleanroom_master.channel import published
from cleanroom_recipes.request import Repository


def test_while_nothing_is_published_there_is_no_source(tmp_path: Path) -> None:
    assert published(tmp_path, "testing", "debian-12") is None


def test_it_is_what_the_current_generation_has_for_the_image(tmp_path: Path) -> None:
    generation = tmp_path / "generations/7"
    for place in ("keys", "apt/dists/testing/debian-12", "yum/debian-13/testing/repodata"):
        (generation / place).mkdir(parents=True)
    (generation / "keys/cleanroom.asc").write_text("the key\n")
    (tmp_path / "current").symlink_to("generations/7")
    assert published(tmp_path, "testing", "debian-12") == Repository("testing", "the key\n", apt=True, yum=False)
    assert published(tmp_path, "testing", "debian-13") == Repository("testing", "the key\n", apt=False, yum=True)
    assert published(tmp_path, "snapshots", "debian-12") is None
    (generation / "keys/retired.asc").write_text("old keys\n")
    found = published(tmp_path, "testing", "debian-13")
    assert found == Repository("testing", "the key\n", apt=False, yum=True, retired="old keys\n")
    assert published(tmp_path, "testing", "debian-14") is None

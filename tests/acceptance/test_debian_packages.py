"""Debian's own source packages with different build systems, the whole way, and a tiny one by emulation."""

from __future__ import annotations

from pathlib import Path

import pytest
from live_site import IMAGE, LiveSite

from cleanroom_images.catalogue import Catalogue
from cleanroom_master.demo import fetch_source

# Source package: build system, and whether it has DEP-8 tests.
PACKAGES = {"libcsv": ("autotools", True), "tinyxml2": ("cmake", False), "tree": ("plain make", False)}


@pytest.mark.timeout(420)
@pytest.mark.parametrize("name", PACKAGES)
def test_a_debian_source_package_goes_the_whole_way(site: LiveSite, tmp_path: Path, name: str) -> None:
    image = Catalogue(site.state).image(IMAGE)
    assert image.tree is not None
    fetch_source(name, tmp_path / "tree", of=image.tree, work=tmp_path / "work")
    (site.site / "recipes").mkdir(exist_ok=True)
    (site.site / "recipes" / f"{name}.toml").write_text('builder = "deb"\n')
    repository = site.product(name, tmp_path / "tree", "--recipe", name)
    changelog = (tmp_path / "tree/debian/changelog").read_text()
    version = changelog.partition("(")[2].partition(")")[0]
    repository.tag(f"debian/{version}")
    shown = site.published(name, f"debian/{version}", timeout=360)
    [build] = shown["builds"]
    assert shown["version"] == version
    outcomes = {phase["name"]: phase["outcome"] for phase in build["phases"]}
    tested = "passed" if PACKAGES[name][1] else "skipped"
    assert outcomes == {
        "build": "passed",
        "install": "passed",
        "upgrade": "skipped",
        "regress": tested,
        "remove": "passed",
    }
    if PACKAGES[name][1]:
        regress = next(phase for phase in build["phases"] if phase["name"] == "regress")
        assert regress["tests"]["passed"] >= 1


@pytest.mark.timeout(600)
def test_a_tiny_package_goes_the_whole_way_by_emulation(site: LiveSite) -> None:
    repository = site.script("emulated", "echo done > result.txt", 'isolation = "emulated"\n')
    repository.tag("v1")
    shown = site.published("emulated", "v1", timeout=540)
    [build] = shown["builds"]
    assert build["isolation"] == "emulated"
    assert [phase["isolation"] for phase in build["phases"] if phase["outcome"] == "passed"] == ["emulated"]

"""Debian's own source packages with different build systems, the whole way."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from live_site import LiveSite
from surroundings import IMAGE

from cleanroom_images.catalogue import Catalogue
from cleanroom_master.demo import fetch_source


@dataclass(frozen=True)
class Package:
    """A source package of Debian: what builds it, and whether it has DEP-8 tests."""

    system: str
    tested: bool


PACKAGES = {
    "libcsv": Package("autotools", tested=True),
    "tinyxml2": Package("cmake", tested=False),
    "tree": Package("plain make", tested=False),
}


TIMEOUT = 840.0

pytestmark = pytest.mark.timeout(TIMEOUT + 60)


@pytest.fixture(scope="module")
def tags(site: LiveSite, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """All products with the tags that were pushed, on their way side by side."""
    place = tmp_path_factory.mktemp("sources")
    image = Catalogue(site.state).image(IMAGE)
    assert image.tree is not None
    pushed: dict[str, str] = {}
    recipe = place / "recipe.toml"
    recipe.write_text('builder = "deb"\n')
    for name in PACKAGES:
        fetch_source(name, place / name, of=image.tree, work=place / "work")
        repository = site.product(name, place / name, "--file", str(recipe))
        changelog = (place / name / "debian/changelog").read_text()
        pushed[name] = "debian/" + changelog.partition("(")[2].partition(")")[0]
        repository.tag(pushed[name])
    return pushed


@pytest.mark.parametrize("name", PACKAGES)
def test_a_debian_source_package_goes_the_whole_way(site: LiveSite, tags: dict[str, str], name: str) -> None:
    shown = site.published(name, tags[name], timeout=TIMEOUT)
    [build] = shown["builds"]
    assert shown["version"] == tags[name].removeprefix("debian/")
    outcomes = {phase["name"]: phase["outcome"] for phase in build["phases"]}
    tested = "passed" if PACKAGES[name].tested else "skipped"
    others = dict.fromkeys(("build", "install", "remove"), "passed")
    upgrades = dict.fromkeys((name for name in outcomes if name.startswith("upgrade")), "skipped")
    assert outcomes == {**others, **upgrades, "regress": tested}
    regress = next(phase for phase in build["phases"] if phase["name"] == "regress")
    assert bool(regress["tests"]["passed"]) == PACKAGES[name].tested

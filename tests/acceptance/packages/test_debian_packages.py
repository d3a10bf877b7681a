"""Debian's own source packages with different build systems, and a tiny one by emulation, the whole way."""

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


EMULATED = "emulated"
# Every process costs dearly there, so nothing is started that is not needed: no debhelper, no lintian.
TINY = {
    "cleanroom.toml": """
builder = "deb"
isolation = "emulated"
[limits]
memory = 1024
[phases.build]
without = ["lint"]
[phases.upgrade]
enabled = false
[phases.regress]
enabled = false
[phases.remove]
enabled = false
""",
    "debian/control": (
        "Source: emulated\nMaintainer: Nobody <nobody@example.org>\nStandards-Version: 4.6.2\n"
        "Rules-Requires-Root: no\n\n"
        "Package: emulated\nArchitecture: all\nDescription: a tiny package\n It has a file.\n"
    ),
    "debian/changelog": (
        "emulated (1.0) unstable; urgency=medium\n\n  * First.\n\n"
        " -- Nobody <nobody@example.org>  Thu, 01 Jan 2026 12:00:00 +0000\n"
    ),
    "debian/rules": """#!/usr/bin/make -f
build build-arch build-indep binary-arch:
clean:
\trm -rf debian/emulated debian/files
binary binary-indep:
\tinstall -D -m 644 README debian/emulated/usr/share/emulated/README
\tmkdir -p debian/emulated/DEBIAN
\tdpkg-gencontrol -Pdebian/emulated
\tdpkg-deb --root-owner-group --build debian/emulated ..
""",
    "debian/source/format": "3.0 (native)\n",
    "README": "Built by emulation.\n",
}
TIMEOUT = 840.0

pytestmark = pytest.mark.timeout(TIMEOUT + 60)


@pytest.fixture(scope="module")
def tags(site: LiveSite, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """All products with the tags that were pushed, on their way side by side."""
    place = tmp_path_factory.mktemp("sources")
    image = Catalogue(site.state).image(IMAGE)
    assert image.tree is not None
    site.product(EMULATED, TINY).tag("v1.0")
    pushed = {EMULATED: "v1.0"}
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


def test_a_tiny_package_goes_the_whole_way_by_emulation(site: LiveSite, tags: dict[str, str]) -> None:
    shown = site.published(EMULATED, tags[EMULATED], timeout=TIMEOUT)
    [build] = shown["builds"]
    assert (shown["version"], build["isolation"]) == ("1.0", "emulated")
    assert "emulated_1.0_all.deb" in [artifact["file"] for artifact in build["artifacts"]]
    phases = [(phase["name"], phase["outcome"], phase["isolation"]) for phase in build["phases"]]
    assert phases == [("build", "passed", "emulated"), ("install", "passed", "emulated")]
    assert {phase["reset_method"].split(",")[0] for phase in build["phases"]} == {"snapshot"}

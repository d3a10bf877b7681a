"""What was published is installed by consumers in clean guests; what they cannot install is taken out by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_site import LiveSite
from test_dependent_products import tree

# A package that brings the repository's own source along, as archives' packages do. Where a consumer did by hand what
# the page says, dpkg asks which of the two files to keep, and nobody is there to answer. No phase of the build sees
# that: there the published channel goes by another name.
PLACE = "etc/apt/sources.list.d/cleanroom-testing.sources"
BRINGS = f"""\
	mkdir -p debian/archive/{PLACE.rpartition("/")[0]}
	echo '# the archive' >debian/archive/{PLACE}
	echo /{PLACE} >debian/archive/DEBIAN/conffiles
"""


@pytest.fixture
def site_with_canary(site: LiveSite) -> Iterator[LiveSite]:
    """The installation of all tests, whose publisher sends consumers."""
    file = site.site / "cleanroom.toml"
    before = file.read_text()
    try:
        file.write_text(before.replace('canary = "no"', 'canary = "yes"'))
        site.kill("publisher")
        yield site
    finally:
        file.write_text(before)
        site.kill("publisher")


@pytest.mark.timeout(600)
def test_consumers_install_what_was_published_or_it_is_taken_out(site_with_canary: LiveSite) -> None:
    site = site_with_canary
    archive = site.product("archive", tree("archive", "1.0", "hello"))
    archive.tag("v1.0")
    assert _wait(site, "v1.0") == 0
    [good] = site.show("archive", "v1.0")["canaries"]
    assert good["state"] == "passed", good
    assert good["said"].startswith("installed by apt on debian-12 in ")
    assert [phase["name"] for phase in good["targets"][0]["phases"]] == ["install"]

    bad = tree("archive", "1.1", "hello again")
    bad["debian/rules"] = bad["debian/rules"].replace("\tdpkg-gencontrol", BRINGS + "\tdpkg-gencontrol")
    for name, content in bad.items():
        (archive.path / name).write_text(content)
    archive.git("commit", "--quiet", "--all", "--message=Bring the archive's source along")
    archive.tag("v1.1")
    assert _wait(site, "v1.1") == 3
    held = site.show("archive", "v1.1")
    assert held["state"] == "held"
    assert held["why"].startswith("testing: taken back by its canary: debian-12/deb: install: apt-get -q -y install")
    assert "end of file on stdin at conffile prompt" in held["why"]
    [told] = held["canaries"]
    assert (told["state"], [phase["name"] for phase in told["targets"][0]["phases"]]) == (
        "failed",
        ["install", "upgrade"],
    )
    newest, *_ = site.ask("repository", "history")
    assert newest["actor"] == "canary"
    assert "took archive v1.1 from testing out" in newest["reason"]
    there = {
        (package["name"], package["version"])
        for channel in site.ask("repository", "show")["channels"]
        for package in channel["packages"]
    }
    assert ("archive", "1.0") in there
    assert ("archive", "1.1") not in there
    assert site.show("archive", "v1.0")["state"] == "published"


def _wait(site: LiveSite, ref: str) -> int:
    """Wait until it is known whether consumers can install a release."""
    return site.run("release", "wait", "archive", ref, "--installed", "--timeout", "280", timeout=300).status

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
    bad = tree("archive", "1.0", "hello")
    bad["debian/rules"] = bad["debian/rules"].replace("\tdpkg-gencontrol", BRINGS + "\tdpkg-gencontrol")
    for product in (site.product("greeting", tree("greeting", "1.0", "hello")), site.product("archive", bad)):
        product.tag("v1.0")

    assert _wait(site, "greeting") == 0
    [told] = site.show("greeting", "v1.0")["canaries"]
    assert told["state"] == "passed", told
    assert told["said"].startswith("installed by apt on debian-12 in ")

    assert _wait(site, "archive") == 3
    held = site.show("archive", "v1.0")
    assert held["state"] == "held"
    assert held["why"].startswith("testing: taken back by its canary: debian-12/deb: install: apt-get -q -y install")
    assert "end of file on stdin at conffile prompt" in held["why"]
    assert [one["state"] for one in held["canaries"]] == ["failed"]
    [newest] = [one for one in site.ask("repository", "history") if one["actor"] == "canary"]
    assert "took archive v1.0 from testing out" in newest["reason"]
    channels = site.ask("repository", "show")["channels"]
    there = {package["name"] for channel in channels for package in channel["packages"]}
    assert "greeting" in there
    assert "archive" not in there


def _wait(site: LiveSite, product: str) -> int:
    """Wait until it is known whether consumers can install a release."""
    return site.run("release", "wait", product, "v1.0", "--installed", "--timeout", "280", timeout=300).status

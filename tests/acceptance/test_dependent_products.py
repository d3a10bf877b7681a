"""A library and what depends on it: built with what is published, and tried before the library's next release."""

from __future__ import annotations

import pytest
from builds import write_tree
from live_site import LiveSite

# Packages that are built without any help: nothing has to be installed for that.
RECIPE = """
builder = "deb"
{more}
[phases.build]
without = ["lint"]
[phases.install]
enabled = false
[phases.upgrade]
enabled = false
[phases.remove]
enabled = false
"""
CONTROL = """\
Source: {name}
Maintainer: Nobody <nobody@example.org>
Build-Depends: {needs}
Standards-Version: 4.6.2
Rules-Requires-Root: no

Package: {name}
Architecture: all
Depends: {needs}
Description: a tiny package
 It has one file.
"""
CHANGELOG = "{name} ({version}) unstable; urgency=medium\n\n  * More.\n\n -- Nobody <nobody@example.org>  {date}\n"
DATE = "Thu, 01 Jan 2026 12:00:00 +0000"
RULES = """#!/usr/bin/make -f
build build-arch build-indep clean binary-arch:
binary binary-indep:
	mkdir -p debian/{name}/DEBIAN debian/{name}/usr/share/{name}
	cp greeting debian/{name}/usr/share/{name}
	dpkg-gencontrol -p{name} -Pdebian/{name}
	dpkg-deb --root-owner-group --build debian/{name} ..
.PHONY: build clean binary
"""


def tree(name: str, version: str, greeting: str, *, needs: str = "", recipe: str = "") -> dict[str, str]:
    control = CONTROL.format(name=name, needs=needs)
    lines = [line for line in control.splitlines() if not line.endswith("epends: ")]
    return {
        "cleanroom.toml": RECIPE.format(more=recipe),
        "debian/control": "\n".join(lines) + "\n",
        "debian/changelog": CHANGELOG.format(name=name, version=version, date=DATE),
        "debian/rules": RULES.format(name=name),
        "debian/source/format": "3.0 (native)\n",
        "greeting": f"{greeting}\n",
    }


@pytest.mark.timeout(840)
def test_a_library_is_held_when_what_depends_on_it_fails_with_it(site: LiveSite) -> None:
    library = site.product("library", tree("library", "1.0", "hello"))
    library.tag("v1.0")
    site.published("library", "v1.0", timeout=400)
    tests = 'tests = ["grep hello /usr/share/library/greeting"]'
    reader = site.product("reader", tree("reader", "1.0", "hi", needs="library", recipe=tests))
    reader.tag("v1.0")
    built = site.published("reader", "v1.0", timeout=400)["builds"][0]
    assert {phase["network"] for phase in built["phases"]} == {"repository"}
    shown = site.ask("product", "show", "reader")
    assert {one["origin"]: one["product"] for one in shown["depends_on"]} == {"build": "library", "package": "library"}

    write_tree(library.path, tree("library", "1.1", "goodbye"))
    library.git("commit", "--quiet", "--all", "--message=Say goodbye")
    library.tag("v1.1")
    assert site.wait("library", "v1.1", timeout=400).status != 0
    held = site.show("library", "v1.1")
    assert held["state"] == "held"
    assert "`regress` of reader v1.0 failed on debian-12/deb" in held["why"]
    assert " with library v1.1; " in held["why"]

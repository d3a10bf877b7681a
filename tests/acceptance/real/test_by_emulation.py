"""A tiny package, the whole way on machines that are emulated."""

from __future__ import annotations

import pytest
from live_site import LiveSite

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


def test_a_tiny_package_goes_the_whole_way_by_emulation(site: LiveSite) -> None:
    site.product(EMULATED, TINY).tag("v1.0")
    shown = site.published(EMULATED, "v1.0", timeout=TIMEOUT)
    [build] = shown["builds"]
    assert (shown["version"], build["isolation"]) == ("1.0", "emulated")
    assert "emulated_1.0_all.deb" in [artifact["file"] for artifact in build["artifacts"]]
    phases = [(phase["name"], phase["outcome"], phase["isolation"]) for phase in build["phases"]]
    assert phases == [("build", "passed", "emulated"), ("install", "passed", "emulated")]
    assert {phase["reset_method"].split(",")[0] for phase in build["phases"]} == {"snapshot"}

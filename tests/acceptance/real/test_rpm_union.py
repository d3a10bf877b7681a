"""The union of rpm packages in real guests: those that go together leave, the one that breaks beside another is held.

What breaks is a scriptlet, so neither files nor relations tell it: only who installs all of them sees it.
"""

from __future__ import annotations

import pytest
from handmade import rpm
from live_site import LiveSite

TIMEOUT = 900.0
pytestmark = pytest.mark.timeout(3 * TIMEOUT)

UNION = 'gates = ["union"]'
BREAKS = {"posttrans": "if [ -e /usr/share/anvil/answer ]; then echo 'no anvil beside me'; exit 1; fi"}


def test_rpm_packages_are_installed_together_before_they_leave(site: LiveSite) -> None:
    site.product("anvil", rpm("anvil", "1.0", "42", UNION)).tag("v1.0")
    site.published("anvil", "v1.0", timeout=TIMEOUT)

    site.product("bellows", rpm("bellows", "1.0", "42", UNION)).tag("v1.0")
    shown = site.published("bellows", "v1.0", timeout=TIMEOUT)
    [gate] = [gate for gate in shown["gates"] if gate["gate"] == "union"]
    assert gate["state"] == "holds", gate
    assert "anvil" in str(shown["union"])

    site.product("chisel", rpm("chisel", "1.0", "42", UNION, scripts=BREAKS)).tag("v1.0")
    answer = site.wait("chisel", "v1.0", timeout=TIMEOUT)
    shown = answer.json
    assert (answer.status, shown["state"]) == (3, "held"), answer
    [build] = shown["builds"]
    assert {phase["outcome"] for phase in build["phases"]} <= {"passed", "skipped"}
    [gate] = [gate for gate in shown["gates"] if gate["gate"] == "union"]
    assert gate["state"] == "fails"
    assert "%posttrans of chisel-1.0-1.noarch failed" in shown["why"], shown["why"]
    # What was published stays.
    assert {site.show(name, "v1.0")["state"] for name in ("anvil", "bellows")} == {"published"}

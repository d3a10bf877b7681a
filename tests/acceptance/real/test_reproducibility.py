"""A real package that comes out the same when it is built again in other circumstances, and one that does not.

lsof has the flags with which it was compiled in itself, for `lsof -v` to tell. One of them is `-ffile-prefix-map`, with
which dpkg-buildflags takes the path of the tree out of everything else; so the program of Debian 12 (4.95.0-1) depends
on where it is built. datefudge, a library and a script, does not.
"""

from __future__ import annotations

import pytest
from debian_sources import Sources
from live_site import LiveSite

from cleanroom_master.logs import LogStore

TIMEOUT = 1200.0
pytestmark = pytest.mark.timeout(2 * TIMEOUT)


def test_a_package_is_reproducible_and_another_is_not(site: LiveSite, sources: Sources) -> None:
    same, other = sources.get("datefudge"), sources.get("lsof")

    shown = site.published(same.name, same.tag, timeout=TIMEOUT)
    again = shown["builds"][0]["reproduction"]
    assert {one["same"] for one in again["artifacts"]} == {True}
    assert [one["file"] for one in again["artifacts"] if one["file"].startswith("datefudge_")] != []
    assert again["report"] is None

    answer = site.wait(other.name, other.tag, timeout=TIMEOUT)
    shown = answer.json
    assert (answer.status, shown["state"]) == (3, "held"), answer
    again = shown["builds"][0]["reproduction"]
    different = [one["file"] for one in again["artifacts"] if not one["same"]]
    assert any(file.startswith("lsof_4.95.0-1_") and file.endswith(".deb") for file in different), again
    assert all(file in shown["why"] for file in different[:1])
    # The source does not depend on where it was packed.
    assert {one["same"] for one in again["artifacts"] if one["file"].endswith((".dsc", ".tar.xz", ".tar.gz"))} == {True}
    report = LogStore(site.state / "logs").read(again["report"]).decode(errors="replace")
    assert "-ffile-prefix-map=" in report

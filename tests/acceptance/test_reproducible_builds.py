"""One product that is the same when it is built again in other circumstances, and one that depends on all of them."""

from __future__ import annotations

from typing import Any

import pytest
from live_site import SCRIPT, LiveSite

from cleanroom_master.files import FileStore
from cleanroom_master.logs import LogStore
from cleanroom_master.places import Places

# Of each, what the circumstances give; one line each.
CIRCUMSTANCES = (
    "pwd",
    "date +%F",
    "date -u +%F",
    "id -un",
    "id -u",
    "umask",
    "hostname",
    "echo $HOME",
    "locale | grep ^LC_ALL",
)
GATE = 'gates = ["reproducible"]\nvary_date = true\n'


def product(site: LiveSite, name: str, command: str) -> None:
    """A tagged product, with some files whose order in their directory says nothing of their names."""
    recipe = SCRIPT.format(command=command) + GATE
    names = {f"names/{word}": word for word in ("zebra", "ant", "mole", "heron", "bee", "yak", "crow", "dog")}
    site.product(name, {"cleanroom.toml": recipe, **names}).tag("v1")


@pytest.mark.timeout(600)
def test_what_depends_on_its_circumstances_is_told_apart(site: LiveSite) -> None:
    product(site, "constant", "ls names | LC_ALL=C sort > result.txt; TZ=UTC date -d @$SOURCE_DATE_EPOCH >> result.txt")
    product(site, "varying", f"{{ {'; '.join(CIRCUMSTANCES)}; ls -U names; }} > result.txt")

    published = site.published("constant", "v1", timeout=400)
    [build] = published["builds"]
    assert [(one["file"], one["same"]) for one in build["reproduction"]["artifacts"]] == [("result.txt", True)]
    assert "built again: result.txt: the same" in site.run("release", "show", "constant", "v1").out

    answer = site.wait("varying", "v1", timeout=400)
    view = answer.json
    assert (answer.status, view["state"]) == (3, "held"), answer
    assert "built again on debian-12/script, 1 of 1 artifact, result.txt, came out otherwise" in view["why"]
    found = view["builds"][0]["reproduction"]
    first, again = (content(site, found["artifacts"][0][key]) for key in ("sha256", "again_sha256"))
    told = dict(zip(CIRCUMSTANCES, zip(first, again, strict=False), strict=False))
    assert [what for what, (one, other) in told.items() if one == other] == []
    # The names come last, in the order of their directory.
    number = len(CIRCUMSTANCES)
    assert sorted(first[number:]) == sorted(again[number:])
    assert first[number:] != again[number:]
    report = LogStore(site.state / "logs").read(found["report"]).decode()
    assert "result.txt" in report
    assert f"-{first[0]}" in report
    assert f"+{again[0]}" in report


def content(site: LiveSite, sha256: Any) -> list[str]:
    """The lines of a file that was kept."""
    return FileStore(Places(site.settings).artifacts).path(str(sha256)).read_text().splitlines()

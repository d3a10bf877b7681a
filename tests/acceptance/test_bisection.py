"""A planted regression among 16 commits, found by `cleanroom bisect` in clean guests."""

from __future__ import annotations

import pytest
from live_site import LiveSite

pytestmark = pytest.mark.timeout(840)

COUNT, CULPRIT, BROKEN = 16, 11, 7
RECIPE = 'builder = "script"\ncommands = ["sh build.sh"]\nartifacts = ["result.txt"]\n'
BUILD = """set -e
. ./value
[ $value = 42 ] || { echo 'FAIL: the answer'; exit 1; }
echo 'PASS: the answer'
echo $value >result.txt
"""


def keys(words: str) -> set[str]:
    """The keys that these words name."""
    return set(words.split())


def test_the_commit_that_broke_a_test_is_found(site: LiveSite) -> None:
    repository = site.product("bisected", {"cleanroom.toml": RECIPE, "build.sh": BUILD, "value": "value=42 # 0\n"})
    commits = [repository.git("rev-parse", "HEAD")]
    for number in range(1, COUNT):
        broken = "value=$(exit 3) #" if number == BROKEN else f"value={41 if number >= CULPRIT else 42} #"
        commits.append(repository.commit(value=f"{broken} {number}\n"))
    asked = ("bisect", "bisected", "--test", "the answer", "--phase", "build", "--parallel", "2")

    answer = site.run(*asked, "--good", commits[0][:12], "--bad", "main", "--format", "json", timeout=600)
    assert answer.status == 0, answer
    found = answer.json
    assert set(found) == keys(
        "id product target axis good bad phase step test runs parallel state why requested_by created_at finished_at"
        " seconds candidates rounds_left probes suspects first_bad evidence"
    )
    assert (found["state"], found["candidates"], found["rounds_left"]) == ("found", COUNT - 1, 0)
    assert found["first_bad"]["commit"] == commits[CULPRIT]
    assert set(found["first_bad"]) == keys("position name commit author subject verdict why dated_at")
    assert found["first_bad"]["author"] == "Anna <anna@example.org>"
    assert set(found["evidence"]) == keys("trial criterion message log_sha256 lines")
    assert "FAIL: the answer" in found["evidence"]["lines"]
    for probe in found["probes"]:
        assert set(probe) == keys("trial position name subject run verdict why started_at seconds")
        number = commits.index(probe["name"])
        wanted = "skipped" if number == BROKEN else "bad" if number >= CULPRIT else "good"
        # One that became needless while it ran is not judged.
        assert probe["verdict"] in (wanted, "skipped")
    assert len(found["probes"]) <= 10

    [row] = site.ask("bisection", "list", "bisected")
    assert (row["id"], row["state"]) == (found["id"], "found")
    assert site.ask("bisection", "show", str(found["id"])) == found
    log = site.run("bisection", "log", str(found["id"])).out.splitlines()
    assert log[0] == "git bisect start"
    assert f"git bisect bad {commits[CULPRIT]}" in log
    # Nothing of it is a release, and what is asked for wrongly changes nothing.
    assert site.ask("release", "list", "bisected") == []
    refused = site.run(*asked, "--good", "main", "--bad", commits[0])
    assert (refused.status, "the other way round" in refused.error) == (2, True)
    late = site.run(*asked, "--good", commits[CULPRIT], "--bad", "main", timeout=240)
    assert (late.status, f"the good one fails: {commits[CULPRIT]}" in late.error) == (2, True), late

"""A test that fails in 30 of 100 runs by real chance: what is told fits what happened, however that was."""

from __future__ import annotations

from typing import Any

import pytest
from live_site import SCRIPT, LiveSite

pytestmark = pytest.mark.timeout(1800)

# 77 of 256 bytes.
CHANCE = (
    "echo done > result.txt; if test $(od -An -N1 -tu1 /dev/urandom) -lt 77;"
    " then echo 'not ok 1 - chance'; exit 1; else echo 'ok 1 - chance'; fi"
)
REPLAYS = 3
# A tag is flaky in 29 of 100 cases; that none of all these is happens once in ten million times.
BATCH, MOST = 6, 48


def test_what_is_told_of_a_test_that_fails_by_chance_fits_its_runs(site: LiveSite) -> None:
    repository = site.product("chance", {"cleanroom.toml": SCRIPT.format(command=CHANCE) + f"replays = {REPLAYS}\n"})
    outcomes: list[str] = []
    while "flaky" not in outcomes and len(outcomes) < MOST:
        tags = [f"v{len(outcomes) + number}" for number in range(1, BATCH + 1)]
        for tag in tags:
            repository.tag(tag)
        outcomes += [judged(site.wait("chance", tag, timeout=600).json) for tag in tags]
    print(f"of {len(outcomes)} tags: {', '.join(outcomes)}")
    assert "flaky" in outcomes
    # The history of the test tells the rate too.
    shown = site.run("test", "history", "chance", "chance").out
    assert f"of {REPLAYS + 1} runs failed" in shown


def judged(view: Any) -> str:
    """The outcome of a release's only test, which is what its runs say."""
    [build] = view["builds"]
    [phase] = [phase for phase in build["phases"] if phase["name"] == "build"]
    if phase["outcome"] == "passed":
        assert (view["state"], phase["replays"], phase["failing"]) == ("published", [], [])
        assert phase["tests"] == {"passed": 1, "failed": 0, "skipped": 0, "flaky": 0}
        return "passed"
    runs = ["failed", *(run["outcome"] for run in phase["replays"])]
    failures = runs.count("failed")
    assert (len(runs), failures + runs.count("passed")) == (REPLAYS + 1, REPLAYS + 1)
    [chance] = phase["repeated_tests"]
    assert (chance["name"], chance["runs"], chance["failures"]) == ("chance", len(runs), failures)
    assert (phase["runs"], phase["failures"]) == (len(runs), failures)
    if failures < len(runs):
        told = f"flaky: {failures} of {len(runs)} runs failed"
        assert (view["state"], build["outcome"], chance["outcome"]) == ("held", "flaky", "flaky")
        assert told in view["why"]
        assert not view["published"]
        return "flaky"
    assert (view["state"], build["outcome"] in ("failed", "regressed")) == ("failed", True)
    assert chance["outcome"] in ("failed", "regressed")
    return "failed"

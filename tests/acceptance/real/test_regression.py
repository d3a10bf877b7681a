"""A bug of a real package comes back: published with its fix and the fix's test, then built without the fix.

Debian's cJSON 1.7.15 has upstream's fix of CVE-2023-26819 as a patch (upstream commit 16f21a59bb85, which cites the
bug): a number of more than 63 characters was cut, so that JSON with one in it was refused. The commit came with a test
of its own, `cjson_parse_big_numbers_should_not_report_error`, which CTest runs as a part of `misc_tests`. The history
is re-enacted here as it would be seen if the fix got lost when patches are refreshed: Debian's version is published;
in the next one the patch keeps the tests and loses what it changes in cJSON.c, which is the parser of 1.7.15 as it was
released; the one after that has the fix again.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from debian_sources import Sources, recorded_cases
from live_site import LiveSite

from cleanroom_master.logs import LogStore

TIMEOUT = 1200.0
pytestmark = pytest.mark.timeout(3 * TIMEOUT)

PATCH = "debian/patches/0001-allocate-memory-for-the-temporary-buffer.patch"
CASE = "build build misc_tests"


def lose_fix(patch: Path) -> str:
    """Take out of a patch what it changes in the parser, and return all of it as it was."""
    whole = patch.read_text()
    parts = re.split(r"^(?=diff --git )", whole, flags=re.MULTILINE)
    kept = [part for part in parts if not part.startswith("diff --git a/cJSON.c ")]
    assert (len(parts), len(kept)) == (4, 3)
    patch.write_text("".join(kept))
    return whole


def test_a_bug_that_comes_back_is_a_regression_and_its_fix_is_told(site: LiveSite, sources: Sources) -> None:
    source = sources.get("cjson")
    version = site.published("cjson", source.tag, timeout=TIMEOUT)["version"]

    whole = lose_fix(source.repository.path / PATCH)
    worse = source.change(f"{version}.1", "Refresh the patches.")
    answer = site.wait("cjson", worse, timeout=TIMEOUT)
    shown = answer.json
    assert (answer.status, shown["state"]) == (1, "failed"), answer
    assert "misc_tests" in shown["why"]
    [build] = shown["builds"]
    [phase] = [phase for phase in build["phases"] if phase["name"] == "build"]
    assert (build["outcome"], phase["outcome"]) == ("regressed", "regressed")
    compared = shown["comparison"]
    assert (compared["against"], compared["names"]["regressed"]) == (source.tag, [CASE])
    assert (compared["fixed"], compared["gone"], compared["new"]) == (0, 0, 0)
    # Built again, it failed again: no chance.
    assert [run["outcome"] for run in phase["replays"]] == ["failed"]
    [repeated] = phase["repeated_tests"]
    assert (repeated["name"], repeated["runs"], repeated["failures"]) == ("misc_tests", 2, 2)
    assert repeated["outcome"] in ("failed", "regressed")
    [failing] = phase["failing"]
    assert failing["name"] == "misc_tests"
    [place] = [case.said for case in recorded_cases(site, "cjson", worse) if case.name == "misc_tests"]
    assert place is not None
    assert "misc_tests" in place
    assert "***" in place
    [log] = [step["log"]["sha256"] for step in phase["steps"] if step["name"] == "build"]
    said = LogStore(site.state / "logs").read(log).decode(errors="replace")
    assert "cjson_parse_big_numbers_should_not_report_error:FAIL" in said

    (source.repository.path / PATCH).write_text(whole)
    better = source.change(f"{version}.2", "Have the fix again.")
    shown = site.published("cjson", better, timeout=TIMEOUT)
    assert (shown["comparison"]["against"], shown["comparison"]["regressed"]) == (source.tag, 0)
    before = shown["comparison_with_previous"]
    assert (before["against"], before["names"]["fixed"]) == (worse, [CASE])

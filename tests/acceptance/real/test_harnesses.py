"""Debian's source packages with the test suites that their authors wrote, by harness: what is told of each case.

Apart from the other tests: with what their build dependencies need they take a quarter of an hour, so this folder runs
where it is named, as `make test SUITE=tests/acceptance/real`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import pytest
from debian_sources import Source, Sources, recorded_cases
from live_site import LiveSite

TIMEOUT = 1500.0
pytestmark = pytest.mark.timeout(TIMEOUT + 300)


@dataclass(frozen=True)
class Suite:
    """A package's own test suite: what runs it, where, some cases, and how many there are at least."""

    harness: str
    place: tuple[str, str]
    some: tuple[str, ...]
    least: int


BUILD = ("build", "build")
# The dearest first: all are on their way side by side.
PACKAGES = {
    "jinja2": Suite(
        "pytest",
        BUILD,
        (
            "tests/test_api.py::TestExtendedAPI::test_item_and_attribute",
            "tests/test_security.py::TestSandbox::test_unsafe",
        ),
        700,
    ),
    "hello": Suite(
        "Automake",
        BUILD,
        ("tests/greeting-1", "tests/greeting-2", "tests/hello-1", "tests/last-1", "tests/traditional-1"),
        5,
    ),
    "wayland-protocols": Suite(
        "Meson",
        BUILD,
        (
            "wayland-protocols.scan-stable_viewporter_viewporter_xml",
            "wayland-protocols.test-build-cxx-stable_viewporter_viewporter_xml",
        ),
        100,
    ),
    "cjson": Suite("CTest", BUILD, ("cJSON_test", "parse_number", "misc_tests", "minify_tests"), 19),
    "golang-github-kballard-go-shellquote": Suite(
        "go test",
        BUILD,
        (
            "github.com/kballard/go-shellquote",
            "github.com/kballard/go-shellquote.TestJoinSplit",
            "github.com/kballard/go-shellquote.TestErrorSplit",
        ),
        5,
    ),
    "libtry-tiny-perl": Suite("prove", BUILD, ("t/basic.t", "t/finally.t", "t/named.t"), 60),
    "datefudge": Suite("DEP-8", ("regress", "autopkgtest"), ("basic-check-with-date", "check-with-perl-localtime"), 6),
}
# What a name has besides what the log says: the script of a TAP stream (and a word where a test has no name), the
# package of a Go test, the project where Meson's file of results is what counts.
ADDED = re.compile(r"^(?:t/\S+\.t: (?:test (?=\d+$))?|\S+\.(?=Test)|wayland-protocols\.)")


@pytest.fixture(scope="module")
def pushed(request: pytest.FixtureRequest, sources: Sources) -> dict[str, Source]:
    """The packages of the tests that were chosen, on their way side by side."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = {call.params.get("name") for call in calls if call is not None}
    return {name: sources.get(name) for name in PACKAGES if name in chosen}


@pytest.mark.parametrize("name", PACKAGES)
def test_the_cases_of_a_real_suite_are_told(site: LiveSite, pushed: dict[str, Source], name: str) -> None:
    suite, source = PACKAGES[name], pushed[name]
    shown = site.published(name, source.tag, timeout=TIMEOUT)
    assert shown["version"] == source.version
    [build] = shown["builds"]
    [phase] = [phase for phase in build["phases"] if phase["name"] == suite.place[0]]

    cases = [case for case in recorded_cases(site, name, source.tag) if (case.phase, case.step) == suite.place]
    outcomes = {case.name: case.outcome for case in cases}
    assert [name for name, times in Counter(case.name for case in cases).items() if times > 1] == []
    assert len(outcomes) >= suite.least
    assert {one: outcomes.get(one) for one in suite.some} == dict.fromkeys(suite.some, "passed")
    assert set(outcomes.values()) <= {"passed", "skipped"}
    counted = Counter(outcomes.values())
    assert phase["tests"] == {"passed": counted["passed"], "failed": 0, "skipped": counted["skipped"], "flaky": 0}
    # Its place in the log is where its harness says how it ended.
    elsewhere = [case for case in cases if case.said is None or ADDED.sub("", case.name) not in case.said]
    assert elsewhere == []
    print(f"{name} ({suite.harness}): {len(cases)} cases, {sum(one['seconds'] for one in build['phases']):.0f} s")

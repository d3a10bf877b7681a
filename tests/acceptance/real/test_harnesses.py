"""Debian's source packages with the test suites that their authors wrote, by harness: what is told of each case.

Apart from the other tests: with what their build dependencies need they take a quarter of an hour, so this folder runs
where it is named, as `make test SUITE=tests/acceptance/real`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from debian_sources import Source, Sources, recorded_cases
from live_site import LiveSite

TIMEOUT = 1500.0
pytestmark = pytest.mark.timeout(TIMEOUT + 300)


# What a name has besides what the log says: the script of a TAP stream (and a word where a test has no name), the
# package of a Go test, the project where Meson's file of results is what counts.
ADDED = re.compile(r"^(?:t/\S+\.t: (?:test (?=\d+$))?|\S+\.(?=Test)|wayland-protocols\.)")
# Surefire prints the class, and its files have the methods.
METHOD = re.compile(r"(?<=Test)\..*$")
# The crate, which cargo says in the header before its tests.
CRATE = re.compile(r"^\w+::")


@dataclass(frozen=True)
class Suite:
    """A package's own test suite: what runs it, where, some cases, how many there are at least, and what is not in the
    log of their names."""

    harness: str
    place: tuple[str, str]
    some: tuple[str, ...]
    least: int
    added: re.Pattern[str] = ADDED


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
    "libcommons-codec-java": Suite(
        "Surefire",
        BUILD,
        (
            "org.apache.commons.codec.binary.Base64Test.testBase64",
            "org.apache.commons.codec.digest.Md5CryptTest.testMd5CryptBytes",
        ),
        500,
        METHOD,
    ),
    "datefudge": Suite("DEP-8", ("regress", "autopkgtest"), ("basic-check-with-date", "check-with-perl-localtime"), 6),
}
ITOA = Suite("cargo test", ("build", "command-1"), ("test::test_i64_min", "test::test_u128_max"), 11, CRATE)
# A crate as Debian has it for other crates to build with.
CRATE_RECIPE = """builder = "script"
packages = ["cargo", "librust-itoa-dev"]
commands = ["sh build.sh"]
artifacts = ["result.txt"]
"""
CRATE_BUILD = """set -e
cp -r /usr/share/cargo/registry/itoa-* crate
mkdir .cargo
cat > .cargo/config.toml <<END
[source.crates-io]
replace-with = "debian"
[source.debian]
directory = "/usr/share/cargo/registry"
END
(cd crate && cargo test --offline)
echo done > result.txt
"""


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

    check_cases(site, name, source.tag, suite, phase)
    print(f"{name} ({suite.harness}): {phase['tests']}, {sum(one['seconds'] for one in build['phases']):.0f} s")


def test_the_cases_of_a_crate_are_told(site: LiveSite) -> None:
    site.product("itoa", {"cleanroom.toml": CRATE_RECIPE, "build.sh": CRATE_BUILD}).tag("v1.0")
    shown = site.published("itoa", "v1.0", timeout=TIMEOUT)
    [build] = shown["builds"]
    [phase] = [phase for phase in build["phases"] if phase["name"] == ITOA.place[0]]
    check_cases(site, "itoa", "v1.0", ITOA, phase)
    print(f"itoa (cargo test): {phase['tests']}, {phase['seconds']:.0f} s")


def test_tests_that_autodep8_writes_are_run(site: LiveSite, sources: Sources) -> None:
    source = sources.get("libtry-tiny-perl")
    assert not (source.repository.path / "debian/tests/control").exists()
    shown = site.published("libtry-tiny-perl", source.tag, timeout=TIMEOUT)
    [phase] = [phase for phase in shown["builds"][0]["phases"] if phase["name"] == "regress"]
    assert phase["outcome"] == "passed"
    wanted = ("autodep8-perl", "autodep8-perl-build-deps", "autodep8-perl-recommends")
    suite = Suite("autodep8", ("regress", "autopkgtest"), wanted, 3)
    check_cases(site, "libtry-tiny-perl", source.tag, suite, phase)


def check_cases(site: LiveSite, product: str, ref: str, suite: Suite, phase: Any) -> None:
    """What is recorded of a suite: each case once, with its place in the log, and as many as the phase counts."""
    cases = [case for case in recorded_cases(site, product, ref) if (case.phase, case.step) == suite.place]
    outcomes = {case.name: case.outcome for case in cases}
    assert [name for name, times in Counter(case.name for case in cases).items() if times > 1] == []
    assert len(outcomes) >= suite.least
    assert {one: outcomes.get(one) for one in suite.some} == dict.fromkeys(suite.some, "passed")
    assert set(outcomes.values()) <= {"passed", "skipped"}
    counted = Counter(outcomes.values())
    assert phase["tests"] == {"passed": counted["passed"], "failed": 0, "skipped": counted["skipped"], "flaky": 0}
    # Its place in the log is where its harness says how it ended.
    elsewhere = [case for case in cases if case.said is None or suite.added.sub("", case.name) not in case.said]
    assert elsewhere == []

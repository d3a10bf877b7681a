from __future__ import annotations

import pytest

from cleanroom_workers.failure_reason import mirror_is_down, repository_is_away, why


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        ("", "step build ended with status 2 and printed nothing"),
        ("cleanroom: tag v1 says 1, debian/changelog says 2\n", "tag v1 says 1, debian/changelog says 2"),
        ("a.c:1: error: x\nmake[1]: *** [a.o] Error 1\nmake[1]: Leaving directory '/x'\n", "a.c:1: error: x"),
        (
            "FAIL: test-one\n# FAIL:  1\ndh_auto_test: error: make -j2 check returned exit code 2\n"
            "make: *** [debian/rules:4: binary] Error 2\ndpkg-buildpackage: error: debian/rules binary: 2\n",
            "FAIL: test-one",
        ),
        ("all is well\nbye\n", "bye"),
        ("sh: 1: fork: Resource temporarily unavailable\n", "sh: 1: fork: Resource temporarily unavailable"),
        ("make: *** [Makefile:2: all] Error 1\n", "make: *** [Makefile:2: all] Error 1"),
        ("error: " + "x" * 1000, "error: " + "x" * 390 + "..."),
    ],
)
def test_a_reason_is_one_telling_line(tail: str, reason: str) -> None:
    said = why(tail, status=2, step="build")
    assert said.removeprefix("step build ended with status 2: ") == reason
    assert "\n" not in said


def test_a_signal_is_named() -> None:
    assert why("", status=-9, step="build") == "step build was ended by signal 9 and printed nothing"


@pytest.mark.parametrize(
    "tail",
    [
        "E: Failed to fetch http://m.invalid/a.deb  502  Bad Gateway [IP: 10.0.0.1 3142]\n",
        "W: Failed to fetch http://m.invalid/dists/x/InRelease  Temporary failure resolving 'm.invalid'\n",
        "Err:3 http://m.invalid/debian bookworm/main amd64 gcc amd64 12\n  Connection timed out\n",
        "E: The repository 'http://m.invalid/debian bookworm Release' does not have a Release file.\n",
    ],
)
def test_a_mirror_that_is_down_is_recognised(tail: str) -> None:
    assert mirror_is_down(tail)


@pytest.mark.parametrize(
    "tail",
    [
        "E: Unable to locate package nonsense\n",
        " builddeps:./ : Depends: nonsense but it is not installable\n",
        "E: Failed to fetch file:/cleanroom/artifacts/x.deb  File not found\n",
        "echo E: Failed to fetch http://m.invalid/a.deb\n",
        "E: Failed to fetch http://m.invalid/a.deb\nE: Sub-process /usr/bin/dpkg returned an error code (1)\n",
    ],
)
def test_the_products_own_faults_are_not_the_mirrors(tail: str) -> None:
    assert not mirror_is_down(tail)


@pytest.mark.parametrize(
    ("tail", "away"),
    [
        ("  - Curl error (7): Couldn't connect to server for http://10.0.0.1/yum/x/repomd.xml [Failed]\n", True),
        ("[MIRROR] x.rpm: Status code: 503 for http://10.0.0.1/yum/x.rpm (IP: 10.0.0.1)\n", True),
        ("  - Curl error (37): Couldn't read a file:// file for file:///cleanroom/artifacts/repodata\n", False),
        ("Error: Unable to find a match: nonsense\n", False),
        ("Curl error (7): x for http://a/\nError: Transaction failed\n", False),
    ],
)
def test_a_repository_that_dnf_cannot_reach_is_recognised(tail: str, away: bool) -> None:
    assert repository_is_away(tail) is away

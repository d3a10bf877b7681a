from __future__ import annotations

from cleanroom_recipes.model import Outcome
from cleanroom_workers.test_reports import LogReport, autopkgtest

PASSED, FAILED, SKIPPED = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED


def report(text: str) -> list[tuple[str, Outcome]]:
    log = LogReport()
    for line in text.splitlines():
        log.take(line)
    return [(case.name, case.outcome) for case in log.cases]


def test_automake() -> None:
    text = "PASS: tests/a\nXFAIL: b\nSKIP: c\nFAIL: d\nXPASS: e\nERROR: f\n# PASS:  1\nPASSED: no\n PASS: no"
    assert report(text) == [
        ("tests/a", PASSED),
        ("b", PASSED),
        ("c", SKIPPED),
        ("d", FAILED),
        ("e", FAILED),
        ("f", FAILED),
    ]


def test_tap() -> None:
    text = "1..6\nok 1 - a b\nok 2\nnot ok 3 - c\nok 4 # SKIP no net\nnot ok 5 - d # TODO later\nok, done\nokay 1"
    assert report(text) == [("a b", PASSED), ("test 2", PASSED), ("c", FAILED), ("test 4", SKIPPED), ("d", SKIPPED)]


def test_ctest() -> None:
    text = (
        " 1/19 Test  #1: parse_examples ...................   Passed    0.00 sec\n"
        " 2/19 Test  #2: parse_number .....................***Failed    0.01 sec\n"
        " 3/19 Test  #3: parse_hex4 .......................***Skipped   0.00 sec\n"
        " 4/19 Test  #4: crash ............................***Exception: SegFault  0.01 sec\n"
        "100% tests passed, 0 tests failed out of 19\n"
    )
    assert report(text) == [
        ("parse_examples", PASSED),
        ("parse_number", FAILED),
        ("parse_hex4", SKIPPED),
        ("crash", FAILED),
    ]


def test_meson() -> None:
    text = (
        " 1/12 suite / a b             OK              0.02s\n"
        "12/12 c   FAIL    1.50s   exit status 1\n"
        " 2/12 d  SKIP 0.1s\n"
    )
    assert report(text) == [("suite / a b", PASSED), ("c", FAILED), ("d", SKIPPED)]


def test_the_last_word_about_a_test_counts() -> None:
    assert report("FAIL: a\nPASS: b\nPASS: a") == [("a", PASSED), ("b", PASSED)]


def test_a_flood_of_tests_is_bounded() -> None:
    assert len(report("".join(f"PASS: {i}\n" for i in range(20_000)))) == 10_000


def test_autopkgtest_summary() -> None:
    text = (
        "command PASS\nlib-x   FAIL stderr: warning\nbig SKIP needs a machine\nodd FLAKY x\n"
        "* SKIP no tests\n\njunk\nx HUH"
    )
    assert [(case.name, case.outcome, case.message) for case in autopkgtest(text)] == [
        ("command", PASSED, None),
        ("lib-x", FAILED, "stderr: warning"),
        ("big", SKIPPED, "needs a machine"),
        ("odd", SKIPPED, "x"),
    ]

"""What real harnesses print: samples of their own output, and lines that only look like it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom_recipes.events import MESSAGE_LIMIT, NAME_LIMIT, TestCase
from cleanroom_recipes.model import Outcome
from cleanroom_workers.results import log as log_module
from cleanroom_workers.results.autopkgtest import Autopkgtest
from cleanroom_workers.results.log import HARNESSES, Harness, LogReport

PASSED, FAILED, SKIPPED = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED
SAMPLES = Path(__file__).parent / "samples"


def read(text: str, harnesses: Sequence[type[Harness]] = HARNESSES) -> list[TestCase]:
    report = LogReport(harnesses)
    for line in text.split("\n"):
        report.take(line)
    return [case for group in report.groups() for case in group]


def sample(name: str, harnesses: Sequence[type[Harness]] = HARNESSES) -> dict[str, tuple[Outcome, str | None]]:
    """The cases of a sample; each stands at a line that names it, or its last part."""
    text = (SAMPLES / name).read_text()
    cases = read(text, harnesses)
    lines = text.split("\n")
    for case in cases:
        assert case.line is not None
        last = case.name.replace("::", ".").rpartition(".")[2].rpartition(": ")[2]
        assert last in lines[case.line - 1] or last.startswith("test ")
    assert len({case.name for case in cases}) == len(cases)
    return {case.name: (case.outcome, case.message) for case in cases}


def test_automake() -> None:
    assert sample("automake.log") == {
        "greeting-1": (PASSED, None),
        "greeting-2": (FAILED, "exit status: 1"),
        "known": (PASSED, None),
        "needs-net": (SKIPPED, None),
        "odd": (FAILED, "exited with status 3 (command not found?)"),
    }


def test_prove() -> None:
    scripts = {
        "t/a.t": (FAILED, "Dubious, test returned 1 (wstat 256, 0x100)\nFailed 1/3 subtests"),
        "t/b.t": (PASSED, None),
        "t/c.t": (SKIPPED, "no perl"),
        "t/d.t": (FAILED, "Dubious, test returned 3 (wstat 768, 0x300)\nFailed 2/3 subtests"),
    }
    assert sample("prove.log") == scripts
    assert sample("prove-verbose.log") == scripts | {
        "t/a.t: first": (PASSED, None),
        "t/a.t: second": (FAILED, None),
        "t/a.t: third": (SKIPPED, "later"),
        "t/b.t: first": (PASSED, None),
        "t/b.t: test 2": (SKIPPED, "no net"),
        "t/d.t: x": (PASSED, None),
    }


def test_tap_without_prove() -> None:
    text = (
        "1..7\nok 1 - a b\nok 2\nnot ok 3 - c\n# got: 1\nok 4 # SKIP no net\nnot ok 5 - d # TODO later\n"
        "ok 6 - issue #12\nok, done\nokay 1\nok\nBail out! no disk"
    )
    assert [(case.name, case.outcome, case.message, case.line) for case in read(text)] == [
        ("a b", PASSED, None, 2),
        ("test 2", PASSED, None, 3),
        ("c", FAILED, "got: 1", 4),
        ("test 4", SKIPPED, "no net", 6),
        ("d", SKIPPED, "later", 7),
        ("issue #12", PASSED, None, 8),
        ("Bail out!", FAILED, "no disk", 12),
    ]


def test_ctest() -> None:
    assert sample("ctest.log") == {
        "good": (PASSED, None),
        "with space": (FAILED, "Failed"),
        "slow": (FAILED, "Timeout"),
        "skip": (SKIPPED, "Skipped"),
        "off": (SKIPPED, "Not Run (Disabled)"),
        "crash": (FAILED, "Exception: SegFault"),
        "gone": (FAILED, "Not Run"),
        "re": (FAILED, "Failed  Required regular expression not found. Regex=[yes"),
    }
    assert [case.seconds for case in read((SAMPLES / "ctest.log").read_text())][:3] == [0.01, 0.0, 1.01]


def test_meson() -> None:
    assert sample("meson.log") == {
        "x:good": (PASSED, None),
        "deep - x:bad one": (FAILED, "exit status 1"),
        "x:skip": (SKIPPED, "exit status 77"),
        "x:xf": (PASSED, None),
        "x:xp": (FAILED, "UNEXPECTEDPASS"),
        "x:crash": (FAILED, "killed by signal 11 SIGSEGV"),
        "x:tap": (FAILED, "1/2 subtests passed"),
        "x:slow": (FAILED, "killed by signal 15 SIGTERM"),
    }


def test_pytest() -> None:
    place = "tests/test_sample.py::"
    assert sample("pytest.log") == {
        f"{place}test_words[a b]": (PASSED, None),
        f"{place}test_words[c[1] - x]": (PASSED, None),
        f"{place}TestIt::test_bad": (FAILED, "AssertionError: assert [1] ==..."),
        f"{place}TestIt::test_net": (SKIPPED, "no network"),
        f"{place}test_later": (PASSED, None),
        f"{place}test_surprise": (PASSED, None),
        f"{place}test_setup": (FAILED, "RuntimeError: no disk"),
        "tests/test_import.py": (FAILED, None),
    }
    workers = sample("pytest-xdist.log")
    assert len(workers) == 7
    assert workers[f"{place}test_words[c[1] - x]"] == (PASSED, None)
    assert workers[f"{place}TestIt::test_bad"] == (FAILED, None)


def test_a_name_in_the_summary_of_pytest_ends_where_it_was_seen_to_end() -> None:
    summary = "FAILED a.py::b[c] - d] - assert [1] - x\nFAILED a.py::c[d - e] - no\nFAILED a.py::d - no - never\n"
    assert [case.name for case in read(f"a.py::b[c] - d] FAILED\n{summary}")] == [
        "a.py::b[c] - d]",
        "a.py::c[d - e]",
        "a.py::d",
    ]


def test_go() -> None:
    module = "example.org/sample"
    packages = {
        module: (FAILED, None),
        f"{module}/broken": (FAILED, "build failed"),
        f"{module}/sub": (PASSED, None),
    }
    failed = {
        f"{module}.TestBad": (FAILED, None),
        f"{module}.TestBad/inner_one": (FAILED, "a_test.go:4: got 1"),
    }
    assert sample("go.log") == packages | failed
    assert sample("go-verbose.log") == packages | failed | {
        f"{module}.TestGood": (PASSED, None),
        f"{module}.TestBad/fine": (PASSED, None),
        f"{module}.TestSkip": (SKIPPED, "a_test.go:5: no net"),
        f"{module}/sub.TestGood": (PASSED, None),
    }


def test_cargo() -> None:
    found = sample("cargo.log")
    failed = found.pop("my_sample::tests::it_fails")
    assert found == {
        "my_sample::tests::ignored": (SKIPPED, "slow"),
        "my_sample::tests::it_adds": (PASSED, None),
        "my_sample::tests::panics": (PASSED, None),
        "it::works": (PASSED, None),
        "my_sample::src/lib.rs - add (line 2)": (PASSED, None),
    }
    assert failed[0] is FAILED
    assert "assertion `left == right` failed\n  left: 2\n right: 3" in (failed[1] or "")


def test_surefire() -> None:
    assert sample("surefire.log") == {
        "org.example.FirstTest": (FAILED, "1 failures and 1 errors in 4 tests"),
        "org.example.FirstTest.broken": (FAILED, "java.lang.IllegalStateException: no disk"),
        "org.example.FirstTest.bad": (FAILED, "org.opentest4j.AssertionFailedError: expected: <1> but was: <2>"),
        "org.example.SecondTest": (PASSED, None),
    }


def test_surefire_of_former_times() -> None:
    text = (
        "Running org.example.OldTest\n"
        "Tests run: 2, Failures: 1, Errors: 0, Skipped: 0, Time elapsed: 0.05 sec <<< FAILURE!\n"
        "bad(org.example.OldTest)  Time elapsed: 0.01 sec  <<< FAILURE!\njava.lang.AssertionError: boom\n\n"
        "Tests run: 1, Failures: 0, Errors: 0, Skipped: 1, Time elapsed: 1,234.5 s - in org.example.OffTest\n"
        "Tests run: 3, Failures: 1, Errors: 0, Skipped: 1\n"
    )
    assert [(case.name, case.outcome, case.seconds) for case in read(text)] == [
        ("org.example.OldTest", FAILED, 0.05),
        ("org.example.OldTest.bad", FAILED, 0.01),
        ("org.example.OffTest", SKIPPED, 1234.5),
    ]


def test_autopkgtest() -> None:
    assert sample("autopkgtest.log", (Autopkgtest,)) == {
        "command": (PASSED, None),
        "library": (FAILED, "non-zero exit status 1"),
    }


@pytest.mark.parametrize(
    "line",
    [
        "ERROR: could not find a version that satisfies the requirement",
        "PASSED: no",
        " PASS: no",
        "checking for working mktime... ok",
        "checking whether gcc .. ok",
        "FAILED to do what was asked",
        "ok",
        "FAIL",
        "test -z x ... yes",
        "Loading .. ok",
        "Tests run: 5, Failures: 1, Errors: 1, Skipped: 1",
        "1/2 of it is OK",
    ],
)
def test_what_only_looks_like_a_result(line: str) -> None:
    assert read(line) == []


def test_of_one_name_the_worst_counts_and_the_first_line() -> None:
    text = "FAIL: a\nPASS: b\nPASS: a\nSKIP: b"
    assert [(case.name, case.outcome, case.line) for case in read(text)] == [("a", FAILED, 1), ("b", PASSED, 2)]


def test_a_flood_of_tests_is_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "CASES_LIMIT", 1000)
    report = LogReport()
    for number in range(1500):
        report.take(f"PASS: {number}")
    assert ([len(group) for group in report.groups()], report.left_out) == ([1000], 500)


_WORDS = st.sampled_from(
    [
        *("PASS: ", "ERROR: ", "ok 1 - ", "not ok 2", "# SKIP ", "t/a.t .. ", "Dubious, ", "1/2 Test #1: a .... ***"),
        *(
            "1/2 a OK 1.5s ",
            "a.py::b PASSED",
            "FAILED a.py::",
            " - ",
            "[",
            "=== RUN a",
            "--- FAIL: a (0.1s)",
            "FAIL\ta\t1s",
        ),
        *("\ta.go:1: x", "test a ... ok", "---- a stdout ----", "   Running x (a/b-", "Tests run: 1, Failures: 1, "),
        *(
            "Errors: 0, Skipped: 0, Time elapsed: 1 s",
            "a(b)  Time elapsed: 1 s <<< FAILURE!",
            "\x1b[31m",
            "\u202e",
            "\r",
        ),
        *("autopkgtest [1]: - - results - -", "a PASS", "1..", "99999999999999999999"),
    ]
)


@given(st.lists(st.lists(_WORDS | st.text(max_size=20), max_size=5).map("".join), max_size=30))
def test_no_lines_can_do_harm(lines: list[str]) -> None:
    for case in read("\n".join(lines), (*HARNESSES, Autopkgtest)):
        assert 0 < len(case.name) <= NAME_LIMIT
        assert case.name.isprintable()
        assert case.line is not None
        assert case.message is None or 0 < len(case.message) <= MESSAGE_LIMIT

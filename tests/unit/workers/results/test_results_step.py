"""What a step's log and its files come to together, and the limits of a phase."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_guest import FakeGuest

from cleanroom_base import run as run_module
from cleanroom_base.errors import InfrastructureError
from cleanroom_base.run import Completed, Output, OutputLimitExceeded
from cleanroom_recipes.events import TestCase
from cleanroom_recipes.model import RESULT_FILES, Outcome
from cleanroom_workers.results import files, step
from cleanroom_workers.results.log import LogReport
from cleanroom_workers.results.step import PhaseResults, StepResults

PASSED, FAILED, SKIPPED = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED
SAMPLES = Path(__file__).parent / "samples"


def log_of(text: str) -> LogReport:
    report = LogReport()
    for line in text.split("\n"):
        report.take(line)
    return report


def results(guest: FakeGuest | None, log: str = "", own: TestCase | None = None) -> StepResults:
    return PhaseResults("/cleanroom").of(guest, RESULT_FILES, log_of(log), own)


def guest_with(tmp_path: Path, **contents: str) -> FakeGuest:
    left = {}
    for number, content in enumerate(contents.values()):
        file = tmp_path / f"{number}.xml"
        file.write_text(content)
        left[f"/cleanroom/build/tree/{file.name}"] = [file]
    return FakeGuest([], left)


def of_samples(log: str, xml: str) -> dict[str, tuple[Outcome, int | None]]:
    guest = FakeGuest([], {"/cleanroom/build/tree/report.xml": [SAMPLES / xml]})
    found = results(guest, (SAMPLES / log).read_text())
    assert found.remark == ""
    assert len({case.name for case in found.cases}) == len(found.cases)
    return {case.name: (case.outcome, case.line) for case in found.cases}


def test_a_harness_that_left_a_file_is_recorded_from_it_with_places_from_the_log() -> None:
    place = "tests.test_sample"
    assert of_samples("pytest.log", "pytest.junit.xml") == {
        "tests.test_import": (FAILED, 56),
        f"{place}.test_words[a b]": (PASSED, 7),
        f"{place}.test_words[c[1] - x]": (PASSED, 8),
        f"{place}.TestIt.test_bad": (FAILED, 9),
        f"{place}.TestIt.test_net": (SKIPPED, 10),
        f"{place}.test_later": (PASSED, 11),
        f"{place}.test_surprise": (PASSED, 12),
        f"{place}.test_setup": (FAILED, 13),
    }


def test_the_log_of_maven_has_the_classes_and_the_file_the_methods() -> None:
    found = of_samples("surefire.log", "surefire.junit.xml")
    assert found["org.example.FirstTest.bad"] == (FAILED, 18)
    assert found["org.example.FirstTest.good"] == (PASSED, 10)
    assert "org.example.FirstTest" not in found


def test_where_log_and_file_differ_the_failure_counts() -> None:
    found = of_samples("ctest.log", "ctest.junit.xml")
    assert found["gone"] == (FAILED, 21)  # CTest's file says that it was skipped
    assert found["off"] == (SKIPPED, 13)
    assert len(found) == 8
    assert of_samples("meson.log", "meson.junit.xml")["x.deep - x:bad one"] == (FAILED, 4)


def test_another_harness_in_the_same_step_is_recorded_too(tmp_path: Path) -> None:
    guest = guest_with(tmp_path, a="<testsuite><testcase classname='A' name='b'/></testsuite>")
    found = results(guest, "PASS: one\nFAIL: two\nok 1 - b\n")
    assert [(case.name, case.outcome) for case in found.cases] == [("A.b", PASSED), ("one", PASSED), ("two", FAILED)]


def test_two_cases_of_one_name_in_files_are_both_kept(tmp_path: Path) -> None:
    one = "<testsuite><testcase name='a'/><testcase name='a'><failure/></testcase></testsuite>"
    found = results(guest_with(tmp_path, a=one))
    assert [(case.name, case.outcome) for case in found.cases] == [("a", PASSED), ("a", FAILED)]


def test_a_command_that_is_a_test_stays_one_whatever_its_files_say(tmp_path: Path) -> None:
    own = TestCase("test-1", FAILED, 1.0, "ended with status 1")
    guest = guest_with(tmp_path, a="<testsuite><testcase name='all'/></testsuite>")
    assert [(case.name, case.outcome) for case in results(guest, own=own).cases] == [
        ("test-1", FAILED),
        ("all", PASSED),
    ]


def test_cases_beyond_the_limit_of_the_phase_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "CASES_LIMIT", 5)
    content = "".join(f"<testcase name='{i}'>{'<failure/>' * (i == 7)}</testcase>" for i in range(8))
    guest = guest_with(tmp_path, a=f"<testsuite>{content}</testsuite>")
    phase = PhaseResults("/cleanroom")
    assert len(phase.of(None, (), log_of("PASS: x\nPASS: y"), None).cases) == 2
    found = phase.of(guest, (), None, None)
    assert [case.name for case in found.cases] == ["0", "1", "2"]
    assert found.remark == "5 test cases were left out, 1 of them failed: a phase keeps at most 5"


def test_messages_beyond_the_limit_of_the_phase_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "MESSAGES_LIMIT", 100)
    found = results(None, "".join(f"not ok {i} - t{i}\n# {'x' * 20}\n" for i in range(3)))
    assert [case.message is None for case in found.cases] == [False, True, True]
    assert found.remark == "the messages of 2 test cases were left out"


def test_many_remarks_are_told_in_short(tmp_path: Path) -> None:
    found = results(guest_with(tmp_path, **{f"x{i}": "<a" for i in range(9)}))
    assert found.remark.startswith("0.xml is not well-formed XML: ")
    assert found.remark.endswith("; and 4 more such")


class _Failing:
    """A guest that fails while it sends."""

    def __init__(self, error: Exception, sent: bytes) -> None:
        self._error, self._sent = error, sent

    def run(
        self, command: Sequence[str], *, timeout: float, output: Output | None = None, output_limit: int | None = None
    ) -> Completed:
        assert output is not None
        output(self._sent)
        raise self._error


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OutputLimitExceeded("too much"), "the result files have more than 128 MiB"),
        (InfrastructureError("the guest is lost"), "the result files could not be read: the guest is lost"),
    ],
)
def test_what_came_before_a_guest_failed_counts(error: Exception, why: str) -> None:
    sent: list[bytes] = []
    FakeGuest([], {"/cleanroom/build/tree/a.xml": [SAMPLES / "ctest.junit.xml"]}).run(
        ["sh", "-c", ""], timeout=1, output=sent.append
    )
    found = PhaseResults("/cleanroom").of(_Failing(error, sent[0][:2500]), (), None, None)
    assert [case.name for case in found.cases] == ["good", "with space"]
    assert why in found.remark


# -- the command, run here -----------------------------------------------------------------------------------------


def asked(home: Path, *patterns: str) -> list[str]:
    stream = run_module.run(files.command(str(home), patterns), timeout=60).stdout
    reader = files.Files()
    names = [case.name for case in reader.read(io.BytesIO(stream))]
    assert reader.remarks == []
    return names


def test_the_command_sends_what_is_newer_than_the_phase_and_was_not_sent(tmp_path: Path) -> None:
    tree = tmp_path / "build" / "tree"
    for directory in (tree / "deep" / "er", tmp_path / "build" / "rpm" / "BUILD" / "x-1", tmp_path / "results"):
        directory.mkdir(parents=True)
    (tree / "old.tap").write_text("ok 1 - old\n")
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "0").write_text("")
    _age(tree / "old.tap", 200)
    _age(tmp_path / "steps" / "0", 100)
    assert asked(tmp_path, "*.tap") == []
    _age(tmp_path / "results-read", 50)
    (tree / "deep" / "er" / "a b'c.tap").write_text("ok 1 - deep\n")
    (tree / "a.xml").write_text("<testsuite><testcase name='unasked'/></testsuite>")
    (tree / "link.tap").symlink_to("/etc/passwd")
    (tmp_path / "build" / "rpm" / "BUILD" / "x-1" / "r.tap").write_text("ok 1 - rpm\n")
    (tmp_path / "results" / "own.xml").write_text("<testsuite><testcase name='own'/></testsuite>")
    assert asked(tmp_path, "*.tap") == ["rpm", "deep", "own"]
    _age(tree / "deep" / "er" / "a b'c.tap", 10)
    assert asked(tmp_path, "*.tap", "none/*.xml") == []


def _age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))

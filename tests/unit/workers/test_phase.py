"""One phase with a guest that does what each test says: whose fault is it, and what is told?"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from fake_guest import Behaviour, FakeGuest, prints, raises
from tiny_packages import make_deb

from cleanroom_base.errors import InfrastructureError, InputError, Problem, ProductError
from cleanroom_base.run import CommandTimedOut, OutputLimitExceeded
from cleanroom_recipes import events
from cleanroom_recipes.conditions import Conditions
from cleanroom_recipes.events import (
    Artifact,
    Output,
    PhaseFinished,
    Reset,
    StartingState,
    StepFinished,
    StepStarted,
    Tests,
    Version,
)
from cleanroom_recipes.model import (
    Blame,
    Builder,
    Condition,
    Input,
    Isolation,
    Limits,
    Network,
    Outcome,
    RefKind,
    Report,
    Target,
    User,
)
from cleanroom_recipes.plan import PhasePlan, StepPlan
from cleanroom_recipes.request import PhaseRequest, Repository
from cleanroom_workers import room
from cleanroom_workers.command import cancelled_by_signals
from cleanroom_workers.guest import GuestLost, GuestWentOff
from cleanroom_workers.phase import Surroundings, run_phase

Kind = TypeVar("Kind")

OUTPUT = "/cleanroom/output"
NO_MIRROR = (
    "Err:1 http://mirror.invalid/debian bookworm InRelease\n"
    "  Could not connect to 10.0.0.1:3142 (10.0.0.1). - connect (111: Connection refused)\n"
    "E: Failed to fetch http://mirror.invalid/debian/x.deb  Could not connect to 10.0.0.1:3142\n"
    "E: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?\n"
)
NO_SUCH_PACKAGE = (
    "The following packages have unmet dependencies:\n"
    " builddeps:./ : Depends: libnonexistent-dev but it is not installable\n"
    "E: Unable to correct problems, you have held broken packages.\n"
)


def step(name: str, **changes: Any) -> StepPlan:
    return replace(StepPlan(name=name, program=f"echo {name}", timeout=100.0), **changes)


class Run:
    """One run of a phase in a fake guest, and all that it told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.told: list[events.Event] = []
        self.listing = prints("base 1\n")
        self.lost_something = False
        self.source = directory / "source.tar"
        with tarfile.open(self.source, "w") as tar:
            member = tarfile.TarInfo("debian/tests/control")
            tar.addfile(member, io.BytesIO())
            control = b"Source: tiny\nTestsuite: autopkgtest-pkg-perl\n"
            member = tarfile.TarInfo("debian/control")
            member.size = len(control)
            tar.addfile(member, io.BytesIO(control))
        self.output = directory / "output"
        self.output.mkdir()
        self.request = PhaseRequest(
            product="tiny",
            ref="v1.0",
            kind=RefKind.TAG,
            commit="a" * 40,
            commit_time=datetime(2026, 1, 31, 12, 0, tzinfo=UTC),
            expected_version=None,
            target=Target("debian-12", Builder.SCRIPT),
            attempt=1,
            phase=PhasePlan(
                name="build",
                steps=(),
                inputs=(Input.SOURCE,),
                format=Builder.SCRIPT,
                makes_artifacts=False,
                timeout=1000.0,
                network=Network.MIRROR,
                isolation=Isolation.AUTO,
                limits=Limits(),
                image="debian-12",
            ),
            source=self.source,
            artifacts=None,
            previous=None,
            output=self.output,
        )

    def plan(self, **changes: Any) -> None:
        self.request = replace(self.request, phase=replace(self.request.phase, **changes))

    def go(
        self,
        steps: Sequence[tuple[StepPlan, Behaviour]],
        files: Mapping[str, Sequence[Path]] | None = None,
        *,
        shield: Callable[[], None] = lambda: None,
    ) -> Outcome:
        self.plan(steps=tuple(plan for plan, _ in steps))
        self.guest = FakeGuest([behaviour for _, behaviour in steps], files)
        self.guest.listing = self.listing
        self.guest.lost_something = self.lost_something
        surroundings = Surroundings(
            lambda _: self.guest,
            log_limit=1000,
            artifact_limit=10_000_000,
            shield=shield,
            repository=lambda: "http://10.0.0.1:9480",
        )
        outcome = run_phase(self.request, surroundings, self.told.append)
        assert self.guest.destroyed or not self.of(Reset)
        assert isinstance(self.told[-1], PhaseFinished)
        assert self.told[-1].outcome is outcome
        return outcome

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.told if isinstance(event, kind)]

    @property
    def why(self) -> str:
        return self.of(PhaseFinished)[0].why or ""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_a_phase_is_told_from_its_start_to_its_end(run: Run) -> None:
    steps = [(step("unpack"), prints("one\n")), (step("build", user=User.BUILDER), prints("two\n"))]
    assert run.go(steps) is Outcome.PASSED
    kinds = [event.kind for event in run.told]
    in_step = ["step_started", "output", "step_finished"]
    assert kinds == ["phase_started", "reset", *in_step, *in_step, "phase_finished"]
    assert [event.text for event in run.of(Output)] == ["one\n", "two\n"]
    assert [(event.step, event.position) for event in run.of(StepStarted)] == [("unpack", 0), ("build", 1)]
    assert run.of(StepFinished)[0].output_bytes == 4
    assert run.guest.users == ["root", "builder"]


def test_what_is_installed_is_told_once_before_the_first_test(run: Run) -> None:
    steps = [(step(name, tests=tests), prints("")) for name, tests in (("a", Report.NONE), ("b", Report.LOG))]
    assert run.go([*steps, (step("c", tests=Report.COMMAND), prints(""))]) is Outcome.PASSED
    kinds = [event.kind for event in run.told if event.kind in ("step_started", "starting_state")]
    assert kinds == ["step_started", "starting_state", "step_started", "step_started"]
    [told] = run.of(StartingState)
    assert (told.packages, told.sha256) == (1, hashlib.sha256(b"base 1").hexdigest())


@pytest.mark.parametrize(
    ("digest", "outcome"), [(hashlib.sha256(b"base 1").hexdigest(), "passed"), ("0" * 64, "infrastructure")]
)
def test_a_replay_in_another_state_runs_no_tests(run: Run, digest: str, outcome: str) -> None:
    run.request = replace(run.request, installed=digest)
    assert run.go([(step("a"), prints("")), (step("b", tests=Report.LOG), prints(""))]).value == outcome
    assert ("b" in [event.step for event in run.of(StepStarted)]) is (outcome == "passed")
    assert ("another state" in run.why) is (outcome != "passed")


@pytest.mark.parametrize("error", [CommandTimedOut("late"), OutputLimitExceeded("much")])
def test_packages_that_cannot_be_listed_fail_no_phase_but_a_replay(run: Run, error: Exception) -> None:
    steps = [(step("b", tests=Report.LOG), prints(""))]
    run.listing = raises(error)
    assert run.go(steps) is Outcome.PASSED
    assert not run.of(StartingState)
    run.request = replace(run.request, installed="0" * 64)
    run.told.clear()
    assert run.go(steps) is Outcome.INFRASTRUCTURE


def test_a_build_in_other_circumstances(run: Run) -> None:
    steps = [(step("a", user=user), prints("")) for user in (User.ROOT, User.BUILDER)]
    run.go(steps)
    plain = [dict(one) for one in run.guest.environments]
    assert run.guest.commands == [["sh", "/cleanroom/steps/0"], ["sh", "/cleanroom/steps/1"]]
    run.request = replace(run.request, conditions=Conditions(varied=True))
    run.plan(makes_artifacts=True)
    (run.directory / "result").write_text("x")
    run.told.clear()
    assert run.go(steps, {OUTPUT: [run.directory / "result"]}) is Outcome.PASSED
    root, builder = (
        {name for name in now if now[name] != before.get(name)}
        for now, before in zip(run.guest.environments, plain, strict=True)
    )
    assert root == {"CLEANROOM_TREE"}
    assert {"CLEANROOM_TREE", "TZ", "LC_ALL", "HOME", "USER", "SHELL"} <= builder
    assert run.guest.commands[0] == ["sh", "/cleanroom/steps/0"]
    assert "umask" in run.guest.commands[1][2]
    assert run.guest.commands[1][-1] == "/cleanroom/steps/1"


@pytest.mark.parametrize("isolation", ["container", "emulated"])
def test_the_clock_of_a_machine_is_another_one_while_the_product_s_code_runs(
    run: Run, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    monkeypatch.setattr(FakeGuest, "isolation", isolation)
    run.request = replace(run.request, conditions=Conditions(varied=True))
    run.plan(makes_artifacts=True)
    (run.directory / "result").write_text("x")
    steps = [(step(name, user=user), prints("")) for name, user in (("a", User.ROOT), ("b", User.BUILDER))]
    steps.append((step("c", user=User.BUILDER), raises(ProductError("it shut its guest down"))))
    assert run.go(steps, {OUTPUT: [run.directory / "result"]}) is Outcome.FAILED
    if isolation == "container":
        assert run.guest.clock == []
        return
    now = datetime.now(UTC).timestamp()
    days = [(round((at - now) / 86_400), ended) for at, ended in run.guest.clock]
    # And is the right one before what follows.
    assert days == [(398, 1), (0, 2), (398, 2), (0, 3)]


def test_inputs_and_programs_go_in(run: Run) -> None:
    artifacts = run.directory / "artifacts"
    artifacts.mkdir()
    (artifacts / "x.deb").write_bytes(b"x")
    run.plan(inputs=(Input.SOURCE, Input.ARTIFACTS, Input.PREVIOUS))
    run.request = replace(run.request, artifacts=artifacts)
    run.go([(step("only", program="echo hi\n"), prints(""))])
    assert {"cleanroom/source.tar", "cleanroom/artifacts/x.deb", "cleanroom/previous"} <= set(run.guest.sent)
    assert run.guest.programs == {"cleanroom/steps/0": b"echo hi\n"}


def test_a_step_knows_what_it_builds(run: Run) -> None:
    run.request = replace(run.request, kind=RefKind.COMMIT, ref="$(reboot)")
    run.go([(step("only", environment={"CFLAGS": "-O0", "LC_ALL": "C"}), prints(""))])
    (environment,) = run.guest.environments
    assert environment["CLEANROOM_REF"] == "$(reboot)"
    assert environment["CLEANROOM_SNAPSHOT"] == "+git20260131120000.aaaaaaa"
    assert environment["CLEANROOM_EXPECTED_VERSION"] == ""
    assert environment["SOURCE_DATE_EPOCH"] == "1769860800"
    assert (environment["CFLAGS"], environment["LC_ALL"]) == ("-O0", "C")
    assert not [name for name in environment if "PASSWORD" in name or "DATABASE" in name]


# -- the product's fault ---------------------------------------------------------------------------------------


def test_a_failing_build_says_why(run: Run) -> None:
    text = "cc x.c\nx.c:1: error: expected ';'\nmake: *** [Makefile:1: x.o] Error 1\n"
    assert run.go([(step("build"), prints(text, 2)), (step("lint"), prints("never"))]) is Outcome.FAILED
    assert run.why == "step build ended with status 2: x.c:1: error: expected ';'"
    assert len(run.of(StepFinished)) == 1
    assert run.of(StepFinished)[0].exit_status == 2


def test_a_step_that_is_not_required_may_fail(run: Run) -> None:
    assert run.go([(step("lint", required=False), prints("E: ugly", 1)), (step("next"), prints(""))]) is Outcome.PASSED
    assert [event.outcome for event in run.of(StepFinished)] == [Outcome.FAILED, Outcome.PASSED]


def test_a_hanging_step_fails(run: Run) -> None:
    assert run.go([(step("build"), raises(CommandTimedOut("late"), "working\n"))]) is Outcome.FAILED
    assert run.why == "step build did not end in 100 seconds"
    assert run.of(Output)[0].text == "working\n"


def test_a_hanging_phase_fails(run: Run) -> None:
    run.plan(timeout=5.0)
    assert run.go([(step("build", required=False), raises(CommandTimedOut("late")))]) is Outcome.FAILED
    assert run.why == "the phase did not end in 5 seconds"


def test_an_endless_log_is_ended_and_kept_up_to_its_limit(run: Run) -> None:
    error = OutputLimitExceeded("ssh printed more than 1000 bytes and was ended")
    assert run.go([(step("build"), raises(error, "x" * 1000))]) is Outcome.FAILED
    assert run.why == "step build printed more than 1000 bytes and was ended"
    finished = run.of(StepFinished)[0]
    assert (finished.truncated, finished.output_bytes, finished.exit_status) == (True, 1000, None)
    assert sum(len(event.text) for event in run.of(Output)) == 1000


def test_a_build_that_switches_its_guest_off_fails(run: Run) -> None:
    error = ProductError("the guest guest-1 was switched off from inside")
    assert run.go([(step("lint", required=False), raises(error))]) is Outcome.FAILED
    assert run.why == "the guest guest-1 was switched off from inside during step lint"


def test_a_guest_that_went_off_is_told_as_such(run: Run) -> None:
    error = GuestWentOff("the guest guest-1 went off, which may be its product's doing")
    assert run.go([(step("lint", required=False), raises(error))]) is Outcome.INFRASTRUCTURE
    assert run.why == "the guest guest-1 went off, which may be its product's doing, during step lint"
    assert run.of(PhaseFinished)[0].guest_went_off


def test_a_guest_that_goes_off_between_steps_is_told_as_such(run: Run) -> None:
    run.listing = raises(GuestWentOff("the guest guest-1 went off"))
    assert run.go([(step("test", tests=Report.COMMAND), prints("ok"))]) is Outcome.INFRASTRUCTURE
    assert run.of(PhaseFinished)[0].guest_went_off


def test_a_guest_that_is_lost_did_not_go_off(run: Run) -> None:
    assert run.go([(step("build"), raises(GuestLost("the guest guest-1 is lost")))]) is Outcome.INFRASTRUCTURE
    assert not run.of(PhaseFinished)[0].guest_went_off


def test_a_build_dependency_that_does_not_exist_is_the_products_fault(run: Run) -> None:
    plan = step("dependencies", blame=Blame.APT)
    assert run.go([(plan, prints(NO_SUCH_PACKAGE, 100))]) is Outcome.FAILED
    assert "libnonexistent-dev but it is not installable" in run.why


def test_a_package_that_does_not_install_is_the_products_fault(run: Run) -> None:
    text = NO_MIRROR + "dpkg: error processing package tiny (--configure):\nE: Sub-process /usr/bin/dpkg returned 1\n"
    assert run.go([(step("install", blame=Blame.APT), prints(text, 100))]) is Outcome.FAILED


def test_a_build_cannot_pretend_that_the_mirror_is_down(run: Run) -> None:
    assert run.go([(step("build"), prints(NO_MIRROR, 100))]) is Outcome.FAILED


# -- the surroundings' fault -----------------------------------------------------------------------------------


def test_a_mirror_that_is_down_is_not(run: Run) -> None:
    plan = step("dependencies", blame=Blame.APT)
    assert run.go([(plan, prints(NO_MIRROR, 100))]) is Outcome.INFRASTRUCTURE
    assert "Could not connect" in run.why


@pytest.mark.parametrize("behaviour", [prints("E: anything", 100), raises(CommandTimedOut("late"))])
def test_a_step_without_the_products_code_cannot_be_its_fault(run: Run, behaviour: Behaviour) -> None:
    assert run.go([(step("update", blame=Blame.INFRASTRUCTURE), behaviour)]) is Outcome.INFRASTRUCTURE


def test_a_lost_guest_is_not(run: Run) -> None:
    error = InfrastructureError("the guest guest-1 is lost (crashed)")
    assert run.go([(step("lint", required=False), raises(error))]) is Outcome.INFRASTRUCTURE
    assert run.why == "the guest guest-1 is lost (crashed)"
    assert run.of(StepFinished)[0].outcome is Outcome.INFRASTRUCTURE


def test_a_guest_that_does_not_start_is_not(run: Run) -> None:
    def reset(_: PhaseRequest) -> FakeGuest:
        raise InfrastructureError("the image debian-12 is missing")

    outcome = run_phase(run.request, Surroundings(reset, 1000, 1000), run.told.append)
    assert outcome is Outcome.INFRASTRUCTURE
    assert [event.kind for event in run.told] == ["phase_started", "phase_finished"]
    assert run.why == "the image debian-12 is missing"


def test_a_full_disk_of_the_host_is_not(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel's answer about the disk cannot be had otherwise without filling it.
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    text = "cannot write: No space left on device\n"
    assert run.go([(step("build"), prints(text, 1))]) is Outcome.INFRASTRUCTURE
    assert run.why.startswith("the host's disk is full (step build ended with status 1: cannot write")


@pytest.mark.parametrize(
    ("behaviour", "because"),
    [
        (
            prints("useradd: cannot lock /etc/passwd", 1),
            " (step build ended with status 1: useradd: cannot lock /etc/passwd)",
        ),
        (prints("ok"), ""),
    ],
    ids=["failed", "passed"],
)
def test_what_a_guest_does_whose_disk_lost_something_does_not_count(
    run: Run, behaviour: Behaviour, because: str
) -> None:
    run.lost_something = True
    assert run.go([(step("build"), behaviour)]) is Outcome.INFRASTRUCTURE
    assert run.why == f"the guest's disk lost something, because the host's was full{because}"


def test_a_guest_that_goes_off_because_its_disk_lost_something_is_not_told_as_such(run: Run) -> None:
    run.lost_something = True
    run.go([(step("build"), raises(GuestWentOff("the guest guest-1 went off")))])
    assert not run.of(PhaseFinished)[0].guest_went_off


def test_a_host_that_cannot_write_is_not(run: Run) -> None:
    assert run.go([(step("build"), raises(OSError(errno.ENOSPC, "No space left on device")))]) is Outcome.INFRASTRUCTURE
    assert "No space left on device" in run.why


# -- nothing to do, and enough ---------------------------------------------------------------------------------


def test_a_step_may_find_nothing_to_do(run: Run) -> None:
    steps = [(step("a"), prints("cleanroom: nothing here\n", 77)), (step("b"), prints(""))]
    assert run.go(steps) is Outcome.PASSED
    assert run.of(StepFinished)[0].why == "nothing here"


def test_a_step_may_skip_the_phase(run: Run) -> None:
    steps = [(step("a", skips_phase=True), prints("cleanroom: not older\n", 77)), (step("b"), prints(""))]
    assert run.go(steps) is Outcome.SKIPPED
    assert run.why == "not older"


def test_a_phase_whose_tests_were_all_skipped_is_skipped(run: Run) -> None:
    plan = step("autopkgtest", tests=Report.AUTOPKGTEST)
    assert run.go([(step("a"), prints("")), (plan, prints("cleanroom: none can run\n", 77))]) is Outcome.SKIPPED
    assert run.why == "none can run"


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        (Condition("nothing published", previous=True), False),
        (Condition("no tests", source=("debian/tests/missing",)), False),
        (Condition("no tests", source=("debian/tests/control",)), True),
        (Condition("no tests", suites=("autopkgtest-pkg-",)), True),
        (Condition("no tests", suites=("autopkgtest-pkg-ruby",)), False),
    ],
)
def test_a_phase_without_anything_to_do_needs_no_guest(run: Run, condition: Condition, met: bool) -> None:
    run.plan(condition=condition)
    assert run.go([(step("a"), prints(""))]) is (Outcome.PASSED if met else Outcome.SKIPPED)
    assert bool(run.of(Reset)) is met
    assert run.why == ("" if met else condition.why_not)


def test_an_upgrade_is_tried_when_something_is_published(run: Run) -> None:
    previous = run.directory / "previous"
    previous.mkdir()
    (previous / "tiny_0.9_all.deb").write_bytes(b"x")
    run.plan(condition=Condition("nothing published", previous=True), inputs=(Input.PREVIOUS,))
    run.request = replace(run.request, previous=previous)
    assert run.go([(step("a"), prints(""))]) is Outcome.PASSED


def test_a_signal_ends_the_guest_and_tells_it(run: Run) -> None:
    def behave(output: Callable[[bytes], None]) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    with cancelled_by_signals() as shield:
        outcome = run.go([(step("build"), behave)], shield=shield)
    assert outcome is Outcome.CANCELLED
    assert run.guest.destroyed
    assert run.why == "the phase was cancelled by SIGTERM"


def test_all_that_is_wrong_with_the_surroundings_is_told(run: Run) -> None:
    def reset(_: PhaseRequest) -> FakeGuest:
        problems = [Problem("worker.disk", "is too small"), Problem("worker.memory", "is no number")]
        raise InputError("the settings are not valid", problems=problems, hint="cleanroom config check")

    run.plan(steps=(step("build"),))
    assert run_phase(run.request, Surroundings(reset, 1000, 1000), run.told.append) is Outcome.INFRASTRUCTURE
    assert run.why == (
        "the settings are not valid; worker.disk: is too small; worker.memory: is no number;"
        " hint: cleanroom config check"
    )


def test_a_reader_that_went_away_ends_the_guest(run: Run) -> None:
    run.plan(steps=(step("build"),))
    guest = FakeGuest([prints("x")])

    def emit(event: events.Event) -> None:
        if isinstance(event, StepStarted | PhaseFinished):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_phase(run.request, Surroundings(lambda _: guest, 1000, 1000), emit)
    assert guest.destroyed


def test_inputs_that_are_not_there_are_told_before_anything_begins(run: Run) -> None:
    run.plan(inputs=(Input.SOURCE, Input.ARTIFACTS))
    run.request = replace(run.request, source=run.directory / "none.tar")
    (run.output / "left").write_text("from before")
    with pytest.raises(InputError) as caught:
        run_phase(run.request, Surroundings(lambda _: FakeGuest([]), 1000, 1000), run.told.append)
    assert [problem.place for problem in caught.value.problems] == ["source", "artifacts", "output"]
    assert not run.told


# -- tests and artifacts ---------------------------------------------------------------------------------------


def test_results_in_the_log_are_told(run: Run) -> None:
    plan = step("build", tests=Report.LOG)
    run.go([(plan, prints("ok 1 - a\nnot ok 2 - b\nSKIP: c\n" + "".join(f"PASS: t{i}\n" for i in range(550))))])
    assert [(event.passed, event.failed, event.skipped) for event in run.of(Tests)] == [(499, 0, 1), (52, 1, 0)]
    assert [case.line for event in run.of(Tests) for case in event.cases if case.name == "b"] == [2]


def test_failed_cases_of_a_step_that_passes_are_told_and_change_nothing(run: Run) -> None:
    assert run.go([(step("build", tests=Report.LOG), prints("FAIL: a\n"))]) is Outcome.PASSED
    assert run.of(Tests)[0].failed == 1


def test_a_command_is_a_test(run: Run) -> None:
    assert run.go([(step("test-1", tests=Report.COMMAND), prints("wrong\n", 1))]) is Outcome.FAILED
    (case,) = run.of(Tests)[0].cases
    assert (case.name, case.outcome, case.message) == (
        "test-1",
        Outcome.FAILED,
        "step test-1 ended with status 1: wrong",
    )


def test_the_summary_of_autopkgtest_is_read(run: Run) -> None:
    summary = run.directory / "summary"
    summary.write_text("command              PASS\nlibrary FAIL non-zero exit status 1\n")
    files = {"/cleanroom/results/autopkgtest/summary": [summary]}
    assert run.go([(step("autopkgtest", tests=Report.AUTOPKGTEST), prints("", 1))], files) is Outcome.FAILED
    assert (run.of(Tests)[0].passed, run.of(Tests)[0].failed) == (1, 1)


XML = "<testsuite><testcase name='all is well'/></testsuite>"


@pytest.mark.parametrize(("status", "outcome"), [(0, Outcome.PASSED), (1, Outcome.FAILED)])
def test_result_files_are_told_beside_the_command_whose_status_counts(run: Run, status: int, outcome: Outcome) -> None:
    file = run.directory / "junit.xml"
    file.write_text(XML)
    plan = step("test-1", tests=Report.COMMAND, results=("*junit*.xml",))
    assert run.go([(plan, prints("", status))], {"/cleanroom/build/tree/junit.xml": [file]}) is outcome
    assert [(case.name, case.outcome) for event in run.of(Tests) for case in event.cases] == [
        ("test-1", outcome),
        ("all is well", Outcome.PASSED),
    ]
    assert "build/tree/*junit*.xml" in run.guest.asked_for[0]


def test_result_files_that_are_bad_are_told_as_a_remark(run: Run) -> None:
    file = run.directory / "junit.xml"
    file.write_text("<testsuite>")
    plan = step("check", tests=Report.FILES)
    assert run.go([(plan, prints(""))], {"/cleanroom/build/tree/junit.xml": [file]}) is Outcome.PASSED
    assert (run.of(StepFinished)[0].remark or "").startswith("junit.xml is not well-formed XML")


def test_a_step_without_tests_is_asked_for_no_files(run: Run) -> None:
    run.go([(step("a"), prints(""))])
    assert run.guest.asked_for == []
    assert run.of(StepFinished)[0].remark is None


def artifacts_of(run: Run, *files: Path, version: str | None = None) -> Outcome:
    run.plan(makes_artifacts=True)
    run.request = replace(run.request, expected_version=version)
    return run.go([(step("build"), prints(""))], {OUTPUT: files})


def test_artifacts_come_out_with_their_sums(run: Run) -> None:
    file = run.directory / "result.txt"
    file.write_text("content\n")
    assert artifacts_of(run, file, version="1.0") is Outcome.PASSED
    (artifact,) = run.of(Artifact)
    assert (artifact.file, artifact.size, artifact.format) == ("result.txt", 8, "file")
    assert artifact.sha256 == "434728a410a78f56fc1b5899c3593436e61ab0c731e9072d95e96db290205e53"
    assert [file.name for file in run.output.iterdir()] == ["result.txt"]
    assert run.of(Version)[0].version == "1.0"


def test_a_build_without_artifacts_fails(run: Run) -> None:
    assert artifacts_of(run) is Outcome.FAILED
    assert run.why == "the build made no artifacts"


def test_a_link_is_no_artifact(run: Run) -> None:
    link = run.directory / "shadow"
    link.symlink_to("/etc/shadow")
    assert artifacts_of(run, link) is Outcome.FAILED
    assert run.why == "shadow is not a regular file"
    assert not list(run.output.iterdir())


def test_a_name_that_lies_is_no_artifact(run: Run) -> None:
    lie = run.directory / "tiny_2.0_amd64.deb"
    make_deb(run.directory).rename(lie)
    run.plan(format=Builder.DEB)
    assert artifacts_of(run, lie) is Outcome.FAILED
    assert run.why == "tiny_2.0_amd64.deb is not what its name says: by its content it is tiny_1.0_amd64.deb"
    assert not list(run.output.iterdir())


def test_a_failed_build_leaves_no_artifacts(run: Run) -> None:
    file = run.directory / "result.txt"
    file.write_text("content\n")
    run.plan(makes_artifacts=True)
    assert run.go([(step("build"), prints("", 1))], {OUTPUT: [file]}) is Outcome.FAILED
    assert not run.of(Artifact)
    assert not list(run.output.iterdir())


@pytest.mark.parametrize(("network", "sees"), [(Network.MIRROR, True), (Network.OPEN, True), (Network.NONE, False)])
def test_a_guest_with_a_network_sees_the_published_channel(run: Run, network: Network, sees: bool) -> None:
    run.plan(network=network)
    run.request = replace(run.request, repository=Repository("testing", "key", apt=True, yum=False))
    assert run.go([(step("one"), prints(""))]) is Outcome.PASSED
    assert ("etc/apt/sources.list.d/published.sources" in run.guest.sent) is sees
    assert ("etc/apt/keyrings/cleanroom-published.asc" in run.guest.sent) is sees


def test_while_nothing_is_published_a_guest_has_no_such_source(run: Run) -> None:
    assert run.go([(step("one"), prints(""))]) is Outcome.PASSED
    assert not [name for name in run.guest.sent if name.startswith("etc/")]


def test_a_repository_that_is_away_is_not_the_products_fault(run: Run) -> None:
    away = "  - Curl error (7): Couldn't connect to server for http://10.0.0.1:9480/yum/x/repomd.xml [...]\n"
    assert run.go([(step("install", blame=Blame.APT), prints(away, 1))]) is Outcome.INFRASTRUCTURE


def test_what_is_installed_in_the_end_is_told_also_of_a_phase_that_fails(run: Run) -> None:
    def install(_: Any) -> int:
        run.guest.installed["dpkg-query"] = b"installed library 1.0\n"
        return 1

    assert run.go([(step("one"), install)]) is Outcome.FAILED
    [told] = run.of(events.Installed)
    assert told.packages == {"library": "1.0"}

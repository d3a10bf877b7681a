"""What a phase tells while it runs: one JSON object a line, each a dataclass here.

The lines pass from the worker, through Buildbot, to the master. The words in them come from a guest, so
reading is strict: a line has a size limit, and its kind, keys, types and bounds must be right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from cleanroom_base.errors import InputError, Problem
from cleanroom_recipes import names
from cleanroom_recipes.codec import Between, Items, Text, dumps, from_plain, loads, to_plain
from cleanroom_recipes.model import GuestNetwork, ImageName, Isolation, Outcome, PhaseName, StepName

LINE_LIMIT = 256 * 1024
TEXT_LIMIT = 32 * 1024
CASES_LIMIT = 500
NAME_LIMIT = 256
MESSAGE_LIMIT = 1024
WHY_LIMIT = 1000

# In bytes, at most: an event of tests without its cases, a case without its words, a character as JSON.
_LINE_SIZE = 512
_CASE_SIZE = 160
_CHARACTER_SIZE = 6

Why = Annotated[str, Text(WHY_LIMIT)]
Count = Annotated[int, Between(0, 2**63 - 1)]
Duration = Annotated[float, Between(0, 1e9)]
Sha256 = Annotated[str, Text(64, names.SHA256, "a SHA-256 in 64 hexadecimal digits")]
Word = Annotated[str, Text(200)]
Correlation = Annotated[str, Text(32, names.CORRELATION, "what log records have in common, such as ref-17")]
InstalledName = Annotated[
    str, Text(200, r"(rpm:)?[A-Za-z0-9][A-Za-z0-9+._-]*", "a package's name, of an rpm with rpm: before it")
]
InstalledVersion = Annotated[str, Text(200, r"[A-Za-z0-9.+~^:_()-]+", "a version")]
# What such an event may have, so that its line is short enough: bytes of names and versions.
INSTALLED_LIMIT = 128 * 1024


def now() -> datetime:
    """The time of an event: now, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A phase begins; it has no guest yet. `correlation` is that of its request."""

    kind: ClassVar[str] = "phase_started"
    at: datetime
    phase: PhaseName
    correlation: Correlation | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """The phase got its clean guest; `seconds` passed from the wish until the first command had run."""

    kind: ClassVar[str] = "reset"
    at: datetime
    guest: Word
    image: ImageName
    digest: Word
    isolation: Isolation
    method: Word
    network: GuestNetwork
    seconds: Duration


@dataclass(frozen=True, slots=True)
class StartingState:
    """What is installed before the first step that tests: the digest of the sorted list of packages and versions."""

    kind: ClassVar[str] = "starting_state"
    at: datetime
    sha256: Sha256
    packages: Count


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step begins; `position` counts from 0 in its phase."""

    kind: ClassVar[str] = "step_started"
    at: datetime
    step: StepName
    position: Annotated[int, Between(0, 999)]


@dataclass(frozen=True, slots=True)
class Output:
    """Some of what a step prints: UTF-8 as it came, other bytes and NUL as backslash escapes."""

    kind: ClassVar[str] = "output"
    at: datetime
    step: StepName
    text: Annotated[str, Text(TEXT_LIMIT)]


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A step ended.

    `exit_status` is None when the command did not come to its own end; `output_bytes` counts what it printed,
    `truncated` says that it printed more than it may. `remark` says what is not among its test cases, and why.
    """

    kind: ClassVar[str] = "step_finished"
    at: datetime
    step: StepName
    outcome: Outcome
    exit_status: Annotated[int, Between(-255, 255)] | None
    seconds: Duration
    why: Why | None
    output_bytes: Count
    truncated: bool
    remark: Why | None = None


@dataclass(frozen=True, slots=True)
class TestCase:
    """One test and how it ended: passed, failed, flaky or skipped. `line` is its place in the step's log, from 1."""

    __test__: ClassVar[bool] = False  # not a test of ours, whatever its name begins with

    name: Annotated[str, Text(NAME_LIMIT)]
    outcome: Outcome
    seconds: Duration | None = None
    message: Annotated[str, Text(MESSAGE_LIMIT)] | None = None
    line: Annotated[int, Between(1, 2**31 - 1)] | None = None


@dataclass(frozen=True, slots=True)
class Tests:
    """Results of a step's tests; long lists come in several of these, each counting its own."""

    __test__: ClassVar[bool] = False

    kind: ClassVar[str] = "tests"
    at: datetime
    step: StepName
    cases: Annotated[tuple[TestCase, ...], Items(CASES_LIMIT)]
    passed: Count
    failed: Count
    skipped: Count


@dataclass(frozen=True, slots=True)
class Version:
    """The version that the packages really have."""

    kind: ClassVar[str] = "version"
    at: datetime
    version: Annotated[str, Text(128, names.VERSION, "a version")]


@dataclass(frozen=True, slots=True)
class Installed:
    """All packages that were installed when the phase's steps had ended: versions by name."""

    kind: ClassVar[str] = "installed"
    at: datetime
    packages: Annotated[Mapping[InstalledName, InstalledVersion], Items(5000)]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that the phase made, in the request's output directory.

    `format` says what its content is: deb, udeb, dsc, changes, buildinfo, source (a tarball or patch that a
    .dsc names), rpm, source-rpm, or file. Package, version and architecture are read from the content, and
    are None where it has none.
    """

    kind: ClassVar[str] = "artifact"
    at: datetime
    file: Annotated[str, Text(200, names.FILE, "a safe file name")]
    size: Count
    sha256: Sha256
    format: Annotated[str, Text(16, r"[a-z][a-z-]*")]
    package: Word | None
    version: Word | None
    architecture: Word | None


@dataclass(frozen=True, slots=True)
class PhaseFinished:
    """A phase ended, its guest is gone; `command_seconds` of its `seconds` were spent in guest commands.

    `guest_went_off`: it ended because its guest did, and nobody can say whether the product did that.
    """

    kind: ClassVar[str] = "phase_finished"
    at: datetime
    outcome: Outcome
    why: Why | None
    seconds: Duration
    command_seconds: Duration
    guest_went_off: bool = False


Event = (
    PhaseStarted
    | Reset
    | StartingState
    | StepStarted
    | Output
    | StepFinished
    | Tests
    | Version
    | Installed
    | Artifact
    | PhaseFinished
)
KINDS: dict[str, type[Any]] = {
    event.kind: event
    for event in (
        PhaseStarted,
        Reset,
        StartingState,
        StepStarted,
        Output,
        StepFinished,
        Tests,
        Version,
        Installed,
        Artifact,
        PhaseFinished,
    )
}


def encode(event: Event) -> bytes:
    """One line of JSON with its line end."""
    return dumps({"event": event.kind, **to_plain(event)}) + b"\n"


def decode(line: bytes) -> Event:
    """Read one line, which may be hostile. Raises InputError."""
    value = loads(line, most=LINE_LIMIT, what="an event")
    if not isinstance(value, dict):
        raise InputError("an event is not valid", problems=[Problem("", "must be an object")])
    word = value.pop("event", None)
    kind = KINDS.get(word) if isinstance(word, str) else None
    if kind is None:
        known = ", ".join(KINDS)
        raise InputError("an event is not valid", problems=[Problem("event", f"must be one of: {known}")])
    event: Event = from_plain(kind, value, what=f"an event {word}")
    return event


def in_events(at: datetime, step: str, cases: Sequence[TestCase]) -> Iterator[Tests]:
    """The events for any number of test results, each event with so many that its line may be read."""
    begin, size = 0, _LINE_SIZE
    for index, case in enumerate(cases):
        most = _CASE_SIZE + _CHARACTER_SIZE * (len(case.name) + len(case.message or ""))
        if index - begin == CASES_LIMIT or size + most > LINE_LIMIT:
            yield counted(at, step, tuple(cases[begin:index]))
            begin, size = index, _LINE_SIZE
        size += most
    if begin < len(cases):
        yield counted(at, step, tuple(cases[begin:]))


def counted(at: datetime, step: str, cases: tuple[TestCase, ...]) -> Tests:
    """The event for up to CASES_LIMIT test results, with their counts; what is flaky passed in the end."""
    outcomes = [case.outcome for case in cases]
    passed = outcomes.count(Outcome.PASSED) + outcomes.count(Outcome.FLAKY)
    return Tests(at, step, cases, passed, outcomes.count(Outcome.FAILED), outcomes.count(Outcome.SKIPPED))

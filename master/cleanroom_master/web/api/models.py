"""The forms of answers. Those of single rows are the rows' own; here are those that are put together.

A form is a contract: keys are added, never renamed. Times are in UTC, durations in seconds, sizes in bytes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from cleanroom_db.comparisons import Change
from cleanroom_db.dependencies import Queued
from cleanroom_db.listings import Attempt, Phase, Step
from cleanroom_db.states import (
    DependencyOrigin,
    GateState,
    ReleaseState,
    Removal,
    SignaturePolicy,
    SignatureState,
    TagKind,
)
from cleanroom_recipes.model import Outcome, RefKind


class Image(BaseModel):
    """An image by its name and content."""

    name: str
    digest: str | None


class Tests(BaseModel):
    """How many test cases ended how."""

    passed: int
    failed: int
    skipped: int
    flaky: int


class FailingTest(BaseModel):
    """A test case that did not pass."""

    step: str
    name: str
    outcome: Outcome
    seconds: float | None
    message: str
    line: int | None


class RepeatedTest(BaseModel):
    """A test case that was run again, and failed in some runs."""

    step: str
    name: str
    outcome: Outcome
    runs: int | None
    failures: int | None


class Log(BaseModel):
    """A log: `/steps/{step}/log` has its text."""

    sha256: str | None
    size: int
    truncated: bool


class BuildStep(BaseModel):
    """A step."""

    id: int
    name: str
    outcome: Outcome | None
    exit_status: int | None
    why: str
    seconds: float | None
    remark: str
    started_at: datetime
    log: Log


class _Run(BaseModel):
    name: str
    outcome: Outcome | None
    why: str
    isolation: str | None
    network: str | None
    reset_method: str | None
    reset_seconds: float | None
    seconds: float | None
    command_seconds: float | None
    image: Image | None
    package_state: str | None
    started_at: datetime
    finished_at: datetime | None
    tests: Tests
    failing: list[FailingTest]
    steps: list[BuildStep]


class Replay(_Run):
    """A phase that was run again."""

    replay: int
    alone: bool | None


class BuildPhase(_Run):
    """A phase."""

    runs: int | None
    failures: int | None
    replays: list[Replay]
    repeated_tests: list[RepeatedTest]


class Artifact(BaseModel):
    """A file that was built."""

    file: str
    sha256: str
    size: int
    kind: str
    phase: str
    replay: int
    package: str | None
    version: str | None
    architecture: str | None


class AttemptLine(BaseModel):
    """An attempt as one line: `/attempts/{attempt}` has all of it."""

    id: int
    number: int
    outcome: Outcome | None
    why: str
    worker: str | None
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class BuildComparison(BaseModel):
    """What became of tests since another release: how many of each kind, and the names of the first."""

    against: str | None
    regressed: int
    fixed: int
    still_failing: int
    flaky: int
    new: int
    gone: int
    slower: int
    same: int
    phases: list[str]
    names: dict[str, list[str]]


class ReproducedArtifact(BaseModel):
    """A file that was built again."""

    file: str
    same: bool
    sha256: str | None
    again_sha256: str | None


class Reproduction(BaseModel):
    """What became of building again."""

    trial: int
    outcome: str | None
    why: str
    compared_at: datetime | None
    report: str | None
    artifacts: list[ReproducedArtifact]


class Build(BaseModel):
    """A release on one target, with its latest attempt in full."""

    target: str
    attempt: int
    outcome: Outcome | None
    why: str
    worker: str | None
    buildbot_url: str | None
    pauses: bool
    isolation: str | None
    image: Image | None
    queued_at: datetime
    not_before: datetime
    started_at: datetime | None
    finished_at: datetime | None
    planned: list[str]
    phases: list[BuildPhase]
    artifacts: list[Artifact]
    attempts: list[AttemptLine]
    comparison: BuildComparison | None
    comparison_with_previous: BuildComparison | None
    reproduction: Reproduction | None


class Published(BaseModel):
    """A channel that has a release."""

    channel: str
    generation: int
    at: datetime


class Removed(BaseModel):
    """A channel that had a release."""

    channel: str
    generation: int
    why: str
    how: Removal
    at: datetime


class Provenance(BaseModel):
    """What is signed of a published package: the statement and the bill of materials."""

    channel: str
    target: str
    format: str
    name: str
    file: str
    sha256: str
    statement_sha256: str
    bill_sha256: str
    signed_by: list[str]
    signed_at: datetime


class GateResult(BaseModel):
    """A gate; without a state before the release is judged."""

    gate: str
    target: str | None
    state: GateState | None
    why: str
    evaluated_at: datetime | None


class Waiver(BaseModel):
    """A gate that a person waived: wherever it is judged, or for its promotion into one channel alone."""

    gate: str
    channel: str | None
    actor: str
    reason: str
    active: bool
    waived_at: datetime
    expires_at: datetime


class UnionTarget(BaseModel):
    """How it was to install a release together with others on one target."""

    target: str
    outcome: str | None
    why: str
    log: int | str | None
    own: list[str]
    others: list[str]


class Union(BaseModel):
    """How it was to install a release together with others."""

    trial: int | None
    channel: str
    problem: str
    chosen_at: datetime
    left_out: list[str]
    note: str
    targets: list[UnionTarget]


class CanaryPhase(BaseModel):
    """What one consumer did in one guest."""

    name: str
    outcome: str
    seconds: float | None


class CanaryTarget(BaseModel):
    """How a consumer of one target did; without an outcome it has not ended."""

    target: str
    client: str
    outcome: Outcome | None
    why: str
    phases: list[CanaryPhase]


class Canary(BaseModel):
    """How consumers in clean guests did with a release that was published; `said` are their own words."""

    channel: str
    generation: int | None
    state: Literal["waits", "passed", "leaving", "failed", "spoiled", "gone"]
    said: str
    trial: int | None
    finished_at: datetime | None
    targets: list[CanaryTarget]


class Release(BaseModel):
    """A release with everything about it."""

    id: int
    product: str
    ref: str
    commit: str
    version: str | None
    state: ReleaseState
    kind: RefKind
    channel: str
    requested_by: str
    tag_kind: TagKind
    tagger: str | None
    signature: SignatureState
    why: str
    next: str
    tagged_at: datetime | None
    recorded_at: datetime
    claimed_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    builds: list[Build]
    published: list[Published]
    removed: list[Removed]
    security_fix: str | None
    provenance: list[Provenance]
    comparison: BuildComparison | None
    comparison_with_previous: BuildComparison | None
    gates: list[GateResult]
    union: Union | None
    canaries: list[Canary]
    waivers: list[Waiver]


class AttemptPhase(BaseModel):
    """A phase of an attempt, and its steps."""

    phase: Phase
    steps: list[Step]


class WholeAttempt(BaseModel):
    """An attempt with its phases and their steps."""

    attempt: Attempt
    phases: list[AttemptPhase]


class ProductLine(BaseModel):
    """A product as one line; without what its address may keep secret."""

    name: str
    url: str
    tag_patterns: list[str]
    branches: list[str]
    signature_policy: SignaturePolicy
    created_at: datetime
    watched_at: datetime | None
    watch_error: str | None


class NeededProduct(BaseModel):
    """A product that another needs, how that is known, and by which packages."""

    product: str
    origin: DependencyOrigin
    packages: list[str]


class InChannel(BaseModel):
    """What a channel publishes of a product."""

    channel: str
    ref: str
    version: str | None
    generation: int
    at: datetime


class Product(ProductLine):
    """A product with what it needs and what needs it."""

    channels: list[InChannel]
    depends_on: list[NeededProduct]
    dependents: list[str]
    cycle: list[str]


class ReleaseName(BaseModel):
    """A release by its names."""

    ref: str
    version: str | None
    commit: str


class Part(BaseModel):
    """What became of a phase, or of a step."""

    target: str
    phase: str
    change: Change
    before: str | None
    now: str | None
    why: str


class StepPart(Part):
    """What became of a step."""

    step: str


class CaseChange(BaseModel):
    """What became of a test case."""

    target: str
    phase: str
    step: str
    name: str
    change: Change
    before: str | None
    now: str | None
    seconds_before: float | None
    seconds: float | None
    message: str


class Comparison(BaseModel):
    """Two releases of a product, compared."""

    product: str
    against: ReleaseName
    release: ReleaseName
    regressed: bool
    counts: dict[Change, int]
    targets: list[dict[str, str | dict[Change, int] | None]]
    phases: list[Part]
    steps: list[StepPart]
    cases: list[CaseChange]


class Run(BaseModel):
    """A test case in one release."""

    ref: str
    commit: str
    version: str | None
    channel: str
    outcome: Outcome
    seconds: float | None
    message: str
    finished_at: datetime
    line: int | None
    runs: int | None
    failures: int | None


class History(BaseModel):
    """A test case on one target; its runs are newest first."""

    target: str
    phase: str
    step: str
    pass_rate: float | None
    flaky_rate: float | None
    failing_since: ReleaseName | None
    runs: list[Run]


class TestHistory(BaseModel):
    """A test case in the releases of its product."""

    product: str
    name: str
    histories: list[History]


class Generation(BaseModel):
    """A state of the repository; `/generations/{number}/packages` has what is in it."""

    number: int
    switched_at: datetime
    actor: str
    reason: str
    added: int
    removed: int


class MovedPackage(BaseModel):
    """A package that one generation has and another has not."""

    channel: str
    target: str
    format: str
    name: str
    version: str
    architecture: str
    file: str
    sha256: str
    size: int


class MovedRelease(BaseModel):
    """A release that one generation has and another has not."""

    product: str
    ref: str
    channel: str


class Difference(BaseModel):
    """What the second of two generations has that the first has not, and the other way round."""

    first: int
    second: int
    added: list[MovedPackage]
    removed: list[MovedPackage]
    releases_added: list[MovedRelease]
    releases_removed: list[MovedRelease]


class Queue(BaseModel):
    """All that is not at its end, in the order in which it is worked on, and products that need each other."""

    count: int
    queue: list[Queued]
    cycles: list[list[str]]

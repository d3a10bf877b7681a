"""From a recipe and a target to the phases of a build, each with its steps fully resolved.

A plan says everything that a worker must know: the text of every step, its environment, its limits. So a
worker needs no recipe and no builder's files, and the plan that was run can be kept beside its results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from cleanroom_recipes import names
from cleanroom_recipes.codec import Items, Text
from cleanroom_recipes.model import (
    Builder,
    Isolation,
    Limits,
    Network,
    PhaseName,
    Seconds,
    StepName,
    User,
)


class Input(StrEnum):
    """What a phase's guest is given."""

    SOURCE = "source"
    ARTIFACTS = "artifacts"
    PREVIOUS = "previous"


class Blame(StrEnum):
    """Whose fault it is when a step fails."""

    PRODUCT = "product"
    APT = "apt"  # the product's, unless apt could not fetch from the mirror
    INFRASTRUCTURE = "infrastructure"


class Report(StrEnum):
    """Where a step's test results are found."""

    NONE = "none"
    COMMAND = "command"  # the step itself is one test
    LOG = "log"  # PASS/FAIL lines of Automake and `ok`/`not ok` lines of TAP among what it prints
    AUTOPKGTEST = "autopkgtest"  # the summary file of autopkgtest


@dataclass(frozen=True, slots=True)
class Condition:
    """A phase runs only where there is something to do: `why_not` says what is missing otherwise.

    It holds if any of these holds: packages are now published (`previous`), or the source has one of the
    files `source`.
    """

    why_not: Annotated[str, Text(500)]
    previous: bool = False
    source: tuple[Annotated[str, Text(500)], ...] = ()


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: a shell program and all that decides how it runs. `timeout` is in seconds."""

    name: StepName
    program: Annotated[str, Text(65_536)]
    timeout: Seconds
    required: bool = True
    user: User = User.ROOT
    blame: Blame = Blame.PRODUCT
    tests: Report = Report.NONE
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """One phase: a clean guest, what goes in, the steps in their order. `timeout` is in seconds."""

    name: PhaseName
    steps: Annotated[tuple[StepPlan, ...], Items(200)]
    inputs: tuple[Input, ...]
    format: Builder
    makes_artifacts: bool
    timeout: Seconds
    network: Network
    isolation: Isolation
    limits: Limits
    image: Annotated[str, Text(64, names.IMAGE, "an image's name such as debian-12")]
    condition: Condition | None = None

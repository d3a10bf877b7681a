"""The builders: each a folder with a description (`builder.toml`) and its steps, small shell programs.

A new builder is a new folder and a word in `model.Builder`.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

from cleanroom_recipes import places
from cleanroom_recipes.codec import Text, from_plain
from cleanroom_recipes.model import (
    Blame,
    Builder,
    ChannelName,
    Condition,
    Declared,
    Input,
    PhaseName,
    Report,
    Seconds,
    StepName,
    User,
)


@dataclass(frozen=True, slots=True)
class StepDefinition:
    """A step of a builder.

    `program` is a file below the builders' directory, by default `BUILDER/steps/NAME`. With `commands` the
    step stands for the recipe's commands under that key (`commands` or `tests`), each a step of its own. One that is
    not `enabled` runs where a recipe wants it, see `PhaseRecipe.also`. One that
    `prepares` depends on nothing of the product, and running it again where it was run does no harm: see
    `PhasePlan.preparation`. One that is `declared` somewhere depends on that and its environment alone, and does no
    harm either.
    """

    name: StepName
    program: Annotated[str, Text(100, r"[a-z]+(/[a-z-]+)+")] | None = None
    commands: Annotated[str, Text(20, r"commands|tests")] | None = None
    timeout: Seconds | None = None
    required: bool = True
    enabled: bool = True
    user: User = User.ROOT
    blame: Blame = Blame.PRODUCT
    tests: Report = Report.NONE
    skips_phase: bool = False
    prepares: bool = False
    declared: Declared = Declared.NOWHERE


@dataclass(frozen=True, slots=True)
class PhaseDefinition:
    """A phase of a builder. A recipe's own commands in it make its condition hold, unless that is `previous`.

    It begins with what the release's own channel publishes, or with what `channel` does. With `channels` it stands
    for further phases, one a channel, called NAME-CHANNEL. One that is not `enabled` runs where a recipe wants it.
    """

    name: PhaseName
    inputs: tuple[Input, ...]
    steps: tuple[StepDefinition, ...]
    makes_artifacts: bool = False
    condition: Condition | None = None
    enabled: bool = True
    channels: tuple[ChannelName, ...] = ()
    channel: ChannelName | None = None

    @property
    def general(self) -> str:
        """The name of the phase whose case for one channel this is; else its own."""
        return self.name.removesuffix(f"-{self.channel}")


@dataclass(frozen=True, slots=True)
class BuilderDefinition:
    """A builder: what it is for, and its phases in their order."""

    description: str
    phases: tuple[PhaseDefinition, ...]


@functools.cache
def definition(builder: Builder) -> BuilderDefinition:
    """Read a builder's description. Raises InputError where it is not valid."""
    file = places.builders() / builder / "builder.toml"
    read = from_plain(BuilderDefinition, tomllib.loads(file.read_text()), what=f"the builder {builder}")
    return replace(read, phases=tuple(case for phase in read.phases for case in _by_channel(phase)))


def _by_channel(phase: PhaseDefinition) -> Iterator[PhaseDefinition]:
    """The phase itself, then its cases for single channels."""
    yield replace(phase, channels=())
    for channel in phase.channels:
        condition = phase.condition
        if condition is not None:
            condition = replace(condition, why_not=f"{condition.why_not} in {channel}")
        yield replace(phase, name=f"{phase.name}-{channel}", channel=channel, channels=(), condition=condition)


@functools.cache
def program(builder: Builder, step: StepDefinition) -> str:
    """The text of a builder's own step, made complete by the functions that its steps share."""
    directory = places.builders()
    preludes = (directory / "common" / "prelude", directory / builder / "prelude")
    parts = [file for file in preludes if file.exists()]
    parts.append(directory / (step.program or f"{builder}/steps/{step.name}"))
    return "\n".join(file.read_text() for file in parts)

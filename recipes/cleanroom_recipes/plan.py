"""From a recipe and a target to the phases of a build, each with its steps fully resolved.

A plan says everything that a worker must know: the text of every step, its environment, its limits. So a
worker needs no recipe and no builder's files, and the plan that was run can be kept beside its results.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from cleanroom_recipes import builders, names
from cleanroom_recipes.builders import PhaseDefinition, StepDefinition
from cleanroom_recipes.codec import Items, Text
from cleanroom_recipes.model import (
    Blame,
    Builder,
    ChannelName,
    Condition,
    Declared,
    Input,
    Isolation,
    Limits,
    Network,
    PhaseName,
    Recipe,
    Report,
    Seconds,
    StepName,
    StepRecipe,
    Target,
    TreePath,
    User,
)

# The step that brings packages to exact versions.
EXACT = "exact-packages"
# The step that installs what tells programs another date.
OTHER_DATE = "other-date"
# $LIB is the dynamic linker's, ld.so(8). Source of the variables: faketime(1) and libfaketime's README. The offset has
# another day, month, year and day of the week.
_OTHER_DATE = {
    "LD_PRELOAD": "/usr/$LIB/faketime/libfaketimeMT.so.1",
    "FAKETIME": "+34410180",
    "NO_FAKE_STAT": "1",
    "DONT_FAKE_MONOTONIC": "1",
}
# The phase of a trial that compares what it built with the release's own.
COMPARISON = "compare"


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: a shell program and all that decides how it runs. `timeout` is in seconds.

    A step that ends with status 77 is skipped; with `skips_phase` the whole phase is. `results` are patterns of the
    result files that it may leave in the tree.
    """

    name: StepName
    program: Annotated[str, Text(65_536)]
    timeout: Seconds
    required: bool = True
    user: User = User.ROOT
    blame: Blame = Blame.PRODUCT
    tests: Report = Report.NONE
    skips_phase: bool = False
    prepares: bool = False
    results: tuple[TreePath, ...] = ()
    declared: Declared = Declared.NOWHERE
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """One phase: a clean guest, what goes in, the steps in their order. `timeout` is in seconds.

    What is published before (`Input.PREVIOUS`) is looked up in `channel`; None is the release's own.
    """

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
    channel: ChannelName | None = None

    @property
    def preparation(self) -> tuple[str, ...]:
        """The programs of the first steps that are the same for every product.

        A guest may have run them before it is asked for; they are run in the phase all the same.
        """
        return tuple(step.program for step in itertools.takewhile(lambda step: step.prepares, self.steps))


def plan(recipe: Recipe, target: Target) -> tuple[PhasePlan, ...]:
    """The phases of a build of `recipe` on `target`, in their order, without those switched off."""
    phases = builders.definition(target.format).phases
    return tuple(_phase(recipe, target, phase) for phase in phases if _enabled(recipe, phase))


def _enabled(recipe: Recipe, phase: PhaseDefinition) -> bool:
    wish = recipe.phase(phase.name, phase.general).enabled
    return phase.enabled if wish is None else wish


def with_packages(phase: PhasePlan, packages: Mapping[str, str]) -> PhasePlan:
    """The phase with exact versions of packages (by name), before anything that depends on them; none: as it is."""
    if not packages:
        return phase
    before = tuple(itertools.takewhile(lambda step: step.blame is Blame.INFRASTRUCTURE, phase.steps))
    step = StepPlan(
        name=EXACT,
        program=builders.program(phase.format, StepDefinition(EXACT, f"common/{EXACT}")),
        timeout=phase.timeout,
        blame=Blame.APT,
        environment={"CLEANROOM_EXACT": "\n".join(f"{name}={packages[name]}" for name in sorted(packages))},
    )
    return replace(phase, steps=(*before, step, *phase.steps[len(before) :]))


def with_other_date(phase: PhasePlan) -> PhasePlan:
    """A phase that builds, with another date for the product's code, by more than a year; others as they are.

    That is libfaketime's work: a container has its host's clock. Times of files stay what they are.
    """
    if not phase.makes_artifacts:
        return phase
    before = tuple(itertools.takewhile(lambda step: step.blame is Blame.INFRASTRUCTURE, phase.steps))
    program = builders.program(phase.format, StepDefinition(OTHER_DATE, f"common/{OTHER_DATE}"))
    step = StepPlan(name=OTHER_DATE, program=program, timeout=phase.timeout, blame=Blame.INFRASTRUCTURE)
    after = (
        replace(step, environment={**step.environment, **_OTHER_DATE}) if step.user is User.BUILDER else step
        for step in phase.steps[len(before) :]
    )
    return replace(phase, steps=(*before, step, *after))


def comparison(recipe: Recipe, target: Target) -> PhasePlan:
    """The phase that tells how artifacts differ from those of an earlier build, where some do."""
    step = StepDefinition(name="diffoscope", program="common/compare", required=False, timeout=1800.0)
    return PhasePlan(
        name=COMPARISON,
        steps=tuple(_steps(recipe, target.format, step)),
        inputs=(Input.ARTIFACTS, Input.PREVIOUS),
        format=target.format,
        makes_artifacts=False,
        timeout=3600.0,
        network=Network.MIRROR,
        isolation=recipe.isolation,
        limits=recipe.limits,
        image=target.image,
        condition=Condition("every artifact has the same bytes as before", previous=True),
    )


def _phase(recipe: Recipe, target: Target, phase: PhaseDefinition) -> PhasePlan:
    wish = recipe.phase(phase.name, phase.general)
    has_commands = bool(wish.steps) or any(getattr(recipe, step.commands) for step in phase.steps if step.commands)
    wanted = [
        step
        for step in phase.steps
        if (step.enabled or step.name in wish.also) and (step.required or step.name not in wish.without)
    ]
    steps = [plan for step in wanted for plan in _steps(recipe, target.format, step)]
    steps += [_own_step(recipe, step) for step in wish.steps]
    return PhasePlan(
        name=phase.name,
        steps=tuple(steps),
        inputs=phase.inputs,
        format=target.format,
        makes_artifacts=phase.makes_artifacts,
        timeout=wish.timeout or recipe.timeouts.phase,
        network=wish.network or recipe.network,
        isolation=wish.isolation or recipe.isolation,
        limits=recipe.limits,
        image=target.image,
        condition=_condition(phase, has_commands=has_commands),
        channel=phase.channel,
    )


def _condition(phase: PhaseDefinition, *, has_commands: bool) -> Condition | None:
    """A recipe's own commands are something to do, but where nothing is published they have nothing to begin with."""
    if has_commands and not (phase.condition and phase.condition.previous):
        return None
    return phase.condition


def _steps(recipe: Recipe, builder: Builder, step: StepDefinition) -> list[StepPlan]:
    """A builder's step: its own program, or one step for each of the recipe's commands that it stands for."""
    timeout = min(step.timeout or recipe.timeouts.step, recipe.timeouts.step)
    if step.commands is None:
        return [
            StepPlan(
                name=step.name,
                program=builders.program(builder, step),
                timeout=timeout,
                required=step.required,
                user=step.user,
                blame=step.blame,
                tests=step.tests,
                skips_phase=step.skips_phase,
                prepares=step.prepares and step.blame is Blame.INFRASTRUCTURE,
                results=recipe.results if step.tests is not Report.NONE else (),
                declared=step.declared,
                environment=_environment(recipe, step.blame),
            )
        ]
    return [
        StepPlan(
            name=f"{step.name}-{number}",
            program=_in_tree(command),
            timeout=timeout,
            required=step.required,
            user=step.user,
            tests=step.tests,
            results=recipe.results if step.tests is not Report.NONE else (),
            environment=_environment(recipe, Blame.PRODUCT),
        )
        for number, command in enumerate(getattr(recipe, step.commands), 1)
    ]


def _own_step(recipe: Recipe, step: StepRecipe) -> StepPlan:
    return StepPlan(
        name=step.name,
        program=_in_tree(step.run),
        timeout=step.timeout or recipe.timeouts.step,
        required=step.required,
        user=step.user,
        tests=Report.FILES,
        results=recipe.results,
        environment=_environment(recipe, Blame.PRODUCT),
    )


def _in_tree(command: str) -> str:
    return f'set -e\ncd "$CLEANROOM_TREE"\n{command}\n'


def _environment(recipe: Recipe, blame: Blame) -> dict[str, str]:
    """What a step finds in its environment because of the recipe.

    A step whose failure counts as ours gets nothing of the product's: else the product could make it fail.
    """
    if blame is Blame.INFRASTRUCTURE:
        return {}
    return {
        **recipe.environment,
        "CLEANROOM_SPEC": recipe.spec or "",
        "CLEANROOM_PACKAGES": " ".join(recipe.packages),
        "CLEANROOM_PATTERNS": " ".join(recipe.artifacts),
    }

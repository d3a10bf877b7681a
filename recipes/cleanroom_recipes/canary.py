"""The canary: the phases in which a consumer, in a clean guest, installs and upgrades what was published.

Nothing of it is a recipe's matter: the guest does what the consumer's page says, with packages by name and version.
"""

from __future__ import annotations

from collections.abc import Iterable

from cleanroom_recipes import builders
from cleanroom_recipes.builders import StepDefinition
from cleanroom_recipes.model import Blame, Builder, Isolation, Limits, Network, Target
from cleanroom_recipes.plan import PhasePlan, StepPlan

INSTALL = "install"
UPGRADE = "upgrade"
PHASES = (INSTALL, UPGRADE)
# A release with more packages than these is installed as far as these go: they are named in one variable.
MOST = 300

_STEP_TIMEOUT = 1800.0
_PHASE_TIMEOUT = 3600.0

# The name of a package, its version and its architecture.
Named = tuple[str, str, str]


def phases(
    target: Target,
    wanted: Iterable[Named],
    earlier: Iterable[Named],
    *,
    isolation: Isolation = Isolation.AUTO,
    limits: Limits | None = None,
) -> dict[str, PhasePlan]:
    """What a consumer of `target` does with `wanted`, and with what was there before, by the phases' names."""
    environment = {"CLEANROOM_WANTED": _lines(wanted), "CLEANROOM_EARLIER": _lines(earlier)}
    return {
        name: PhasePlan(
            name=name,
            steps=(*preparation(target.format), *consumer(target.format, name, environment)),
            inputs=(),
            format=target.format,
            makes_artifacts=False,
            timeout=_PHASE_TIMEOUT,
            network=Network.MIRROR,
            isolation=isolation,
            limits=limits or Limits(),
            image=target.image,
        )
        for name in PHASES
    }


def preparation(form: Builder) -> tuple[StepPlan, ...]:
    """What makes an image's guest a machine of such a consumer: the first steps of every phase of the builder."""
    phase = next(one for one in builders.definition(form).phases if one.name == INSTALL)
    steps = [step for step in phase.steps if step.prepares]
    return tuple(
        StepPlan(step.name, builders.program(form, step), _STEP_TIMEOUT, blame=step.blame, prepares=True)
        for step in steps
    )


def consumer(form: Builder, name: str, environment: dict[str, str]) -> tuple[StepPlan, ...]:
    """What the consumer does: as the page says, and then what the phase is called."""
    return tuple(
        StepPlan(
            step,
            builders.program(form, StepDefinition(step, f"{form}/consumer/{step}")),
            _STEP_TIMEOUT,
            blame=Blame.APT,
            # A release may have nothing that a consumer of this image would install.
            skips_phase=step == name,
            environment=environment if step == name else {},
        )
        for step in ("repository", name)
    )


def _lines(packages: Iterable[Named]) -> str:
    return "\n".join(" ".join(one) for one in list(packages)[:MOST])

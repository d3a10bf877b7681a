"""The words of Cleanroom as types: outcome, target, recipe, phase, step, gate, product.

All are immutable values. A recipe here is complete: every default is filled in, so nobody downstream asks
whether a key was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from cleanroom_base.errors import InputError
from cleanroom_recipes import names
from cleanroom_recipes.codec import Between, Items, Text

DEFAULT_IMAGE = "debian-12"

ImageName = Annotated[str, Text(64, names.IMAGE, "an image's name such as debian-12")]
PhaseName = Annotated[str, Text(32, names.PHASE, "a phase's name such as build")]
StepName = Annotated[str, Text(64, names.STEP, "a step's name such as unpack-source")]
Seconds = Annotated[float, Between(1, 604_800)]
Command = Annotated[str, Text(16_384)]


class Outcome(StrEnum):
    """How a step, a phase or a build ended."""

    PASSED = "passed"
    FAILED = "failed"
    REGRESSED = "regressed"
    FLAKY = "flaky"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    INFRASTRUCTURE = "infrastructure"


class RefKind(StrEnum):
    """What a recorded ref is: a release's tag, or a commit on a branch."""

    TAG = "tag"
    COMMIT = "commit"


class Builder(StrEnum):
    """The way from a source tree to packages; also the package format of a target."""

    DEB = "deb"
    RPM = "rpm"
    SCRIPT = "script"


class Network(StrEnum):
    """What a guest reaches: the package mirror through the host's proxy, nothing, or everything."""

    MIRROR = "mirror"
    NONE = "none"
    OPEN = "open"


class Isolation(StrEnum):
    """How a guest is kept apart from its host."""

    AUTO = "auto"
    KVM = "kvm"
    CONTAINER = "container"
    EMULATED = "emulated"


class User(StrEnum):
    """Who runs a step in the guest: root, or the unprivileged `builder`."""

    ROOT = "root"
    BUILDER = "builder"


class Gate(StrEnum):
    """A rule that must hold before publication."""

    BUILDS = "builds"  # every target's build passed; always demanded
    SIGNATURE = "signature"  # the tag carries a good signature of a trusted key
    APPROVAL = "approval"  # a person approved the release


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """An image and a package format, written `debian-12/deb`."""

    image: ImageName
    format: Builder

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `IMAGE/FORMAT`. Raises InputError."""
        image, slash, form = text.partition("/")
        if not slash or not names.is_name(names.IMAGE, image):
            raise InputError(f"a target is written IMAGE/FORMAT such as debian-12/deb, not {text[:100]!r}")
        if form not in set(Builder):
            raise InputError(f"the format of a target is one of {', '.join(Builder)}, not {form[:100]!r}")
        return cls(image, Builder(form))

    def __str__(self) -> str:
        return f"{self.image}/{self.format}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a guest may use; None leaves it to the site. `memory` and `disk` are in MiB."""

    processors: Annotated[int, Between(1, 1024)] | None = None
    memory: Annotated[int, Between(128, 1_048_576)] | None = None
    disk: Annotated[int, Between(512, 16_777_216)] | None = None
    processes: Annotated[int, Between(64, 4_194_304)] | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The longest that one step and one whole phase may take, in seconds."""

    step: Seconds = 3600.0
    phase: Seconds = 7200.0


@dataclass(frozen=True, slots=True)
class StepRecipe:
    """A command of the product's own, run in a phase after the builder's steps, by `sh -e`."""

    name: StepName
    run: Command
    timeout: Seconds | None = None
    required: bool = True
    user: User = User.BUILDER


@dataclass(frozen=True, slots=True)
class PhaseRecipe:
    """What a product wishes differently about one of its builder's phases; None keeps the recipe's own."""

    enabled: bool = True
    network: Network | None = None
    isolation: Isolation | None = None
    timeout: Seconds | None = None
    steps: tuple[StepRecipe, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a product is built and tested.

    `versions` are the patterns by which a tag promises a version (empty: it promises none); `packages` are
    Debian packages that an rpm or script build needs; `commands` are the script builder's; `tests` are
    commands that must succeed with the product installed; `artifacts` are patterns of files that a script
    build leaves in its tree.
    """

    name: Annotated[str, Text(64, names.PRODUCT, "a product's name such as hello")]
    url: Annotated[str, Text(2048)]
    builders: tuple[Builder, ...]
    targets: tuple[Target, ...]
    tags: tuple[str, ...] = ("*",)
    branches: tuple[str, ...] = ()
    versions: tuple[str, ...] = names.VERSION_PATTERNS
    network: Network = Network.MIRROR
    isolation: Isolation = Isolation.AUTO
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    environment: Mapping[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    spec: str | None = None
    commands: tuple[Command, ...] = ()
    tests: tuple[Command, ...] = ()
    artifacts: tuple[str, ...] = ()
    phases: Annotated[tuple[NamedPhase, ...], Items(32)] = ()
    gates: tuple[Gate, ...] = (Gate.BUILDS,)

    def phase(self, name: str) -> PhaseRecipe:
        """What the product says about the phase `name`; the defaults when it says nothing."""
        return next((named.phase for named in self.phases if named.name == name), PhaseRecipe())


@dataclass(frozen=True, slots=True)
class NamedPhase:
    """A phase's name and what the recipe says about it."""

    name: PhaseName
    phase: PhaseRecipe


@dataclass(frozen=True, slots=True)
class Product:
    """A watched git repository and its recipe."""

    name: str
    url: str
    recipe: Recipe

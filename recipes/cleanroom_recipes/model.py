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

ProductName = Annotated[str, Text(64, names.PRODUCT, "a product's name such as hello")]
ImageName = Annotated[str, Text(64, names.IMAGE, "an image's name such as debian-12")]
PhaseName = Annotated[str, Text(32, names.PHASE, "a phase's name such as build")]
EndpointName = Annotated[str, Text(64, names.ENDPOINT, "an endpoint's name such as team")]
StepName = Annotated[str, Text(64, names.STEP, "a step's name such as unpack-source")]
Seconds = Annotated[float, Between(1, 604_800)]
Command = Annotated[str, Text(16_384, r"(?s).*\S.*", "a command")]
RefPattern = Annotated[str, Text(200, r"[^\s\x00-\x1f]+", "a pattern such as v* without spaces")]
VersionPattern = Annotated[
    str, Text(200, r"[^\s{}]*(\{name\}[^\s{}]*)?\{version\}[^\s{}]*", "a pattern such as v{version}")
]
DebianPackage = Annotated[str, Text(128, names.DEBIAN_PACKAGE, "a Debian package's name such as libssl-dev")]
VariableName = Annotated[
    str, Text(128, rf"(?!CLEANROOM_){names.VARIABLE}", "a variable's name such as CFLAGS, not CLEANROOM_...")
]
VariableValue = Annotated[str, Text(8192, r"[^\r\n]*", "text on one line")]
# Inside the source tree: no absolute path, no `..`, no space that a shell pattern would split at.
TreePath = Annotated[
    str,
    Text(
        200,
        r"(?!.*(^|/)\.\.(/|$))[A-Za-z0-9._+~*?\[\]-][A-Za-z0-9._+~*?\[\]/-]*",
        "a path inside the source tree",
    ),
]


# Where the usual harnesses leave their result files; what the repository itself has is older than a build and not read.
RESULT_FILES = (
    "*junit*.xml",  # meson-logs/testlog.junit.xml; ctest --output-junit and pytest --junitxml as people call theirs
    "*/TEST-*.xml",  # Surefire, Failsafe, Gradle, Ant
    "*/test-results/*.xml",
    "*/test-reports/*.xml",
    "*.tap",
    "*.subunit",
)


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


class GuestNetwork(StrEnum):
    """What a guest did reach: as the recipe's word, or the package mirror and the published repository."""

    MIRROR = "mirror"
    NONE = "none"
    OPEN = "open"
    REPOSITORY = "repository"


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
    """A rule that must hold before publication, and that has a word of its own.

    Besides these there are `phase:NAME` (that phase is part of every build, and passed or had nothing to do) and
    `step:PHASE/NAME` (the same of a step, also of one that only informs, such as lint).
    """

    BUILDS = "builds"  # every target's build passed; always demanded
    NO_REGRESSION = "no-regression"  # no test and no phase fails that passed in the published release
    NO_SLOWDOWN = "no-slowdown"  # no test is slower than its earlier runs allow
    NO_LOST_TESTS = "no-lost-tests"  # every test that ran in the published release runs
    NO_CONFLICTS = "no-conflicts"  # its packages break none of the channel's, nor of those that wait beside them
    REPRODUCIBLE = "reproducible"  # built again in other circumstances, every artifact has the same bytes
    SIGNATURE = "signature"  # the tag carries a good signature of a trusted key
    APPROVAL = "approval"  # a person approved the release
    DEPENDENTS = "dependents"  # the products that depend on this one still pass with it
    UNION = "union"  # a guest installs its packages together with what the channel has or is to get


GATE_FORMS = f"{', '.join(Gate)}, phase:NAME, step:PHASE/NAME"
GateName = Annotated[
    str,
    Text(120, rf"{'|'.join(Gate)}|phase:{names.PHASE}|step:{names.PHASE}/{names.STEP}", f"one of: {GATE_FORMS}"),
]
ChannelName = Annotated[str, Text(32, names.CHANNEL, "a channel's name such as testing")]


class Flaky(StrEnum):
    """What becomes of a release with a build that is flaky, the mildest first."""

    PASSES = "pass"  # it goes on, and says that it is flaky
    HOLDS = "hold"  # it waits for a person's approval
    FAILS = "fail"


class Input(StrEnum):
    """What a phase's guest is given."""

    SOURCE = "source"
    ARTIFACTS = "artifacts"
    PREVIOUS = "previous"


class Blame(StrEnum):
    """Whose fault it is when a step fails."""

    PRODUCT = "product"
    APT = "apt"  # the product's, unless apt (or dnf) could not fetch from a source of packages
    INFRASTRUCTURE = "infrastructure"


class Report(StrEnum):
    """Where a step's test results are found."""

    NONE = "none"
    FILES = "files"  # in result files, as for all that follow
    COMMAND = "command"  # the step itself is one test; and as for log
    LOG = "log"  # among what it prints, in the words of the usual harnesses
    AUTOPKGTEST = "autopkgtest"  # in the summary of autopkgtest


class Declared(StrEnum):
    """Where the packages are declared that a step installs, and nothing else of the product decides what it does."""

    NOWHERE = "nowhere"
    CONTROL = "control"  # the fields about building at the top of debian/control
    PACKAGES = "packages"  # the recipe's packages


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """An image and a package format, written `debian-12/deb`; also in JSON."""

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
class Condition:
    """A phase runs only where there is something to do: `why_not` says what is missing otherwise.

    It holds if any of these holds: packages are now published (`previous`), the source has one of the files `source`,
    or the field Testsuite of its debian/control has a word that begins with one of `suites`.
    """

    why_not: Annotated[str, Text(500)]
    previous: bool = False
    source: tuple[Annotated[str, Text(500)], ...] = ()
    suites: tuple[Annotated[str, Text(100)], ...] = ()


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
    """What a product wishes differently about one of its builder's phases; None keeps the builder's or recipe's own.

    `without` names steps of the builder to leave out, of those that inform and do not decide; `also` those to run
    besides, of those that are not run unless a recipe wants them.
    """

    enabled: bool | None = None
    without: Annotated[tuple[StepName, ...], Items(32)] = ()
    also: Annotated[tuple[StepName, ...], Items(32)] = ()
    network: Network | None = None
    isolation: Isolation | None = None
    timeout: Seconds | None = None
    steps: tuple[StepRecipe, ...] = ()


@dataclass(frozen=True, slots=True)
class ChannelRecipe:
    """What a product demands in one channel beside what it demands in all."""

    gates: Annotated[tuple[GateName, ...], Items(32)] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a product is built and tested.

    `versions` are the patterns by which a tag promises a version (empty: it promises none); `packages` are
    Debian packages that an rpm or script build needs; `commands` are the script builder's; `tests` are
    commands that must succeed with the product installed; `artifacts` are patterns of files that a script
    build leaves in its tree; `results` are patterns of result files of tests that steps leave there (`*` goes over
    slashes, as in find's `-path`); `environment` is for the steps that run the product's code. `depends` are products
    besides those of which it is found out; `rebuild_with_dependencies`: before one of these releases, this product is
    not only tested with it but built anew. `replays` says how often a phase is run again whose tests failed, `flaky`
    what becomes of a release whose tests then passed. With `reproducible` what was built is built again and compared,
    also where no gate asks for it; with `vary_date` programs are then told another date, by a library that is
    preloaded. `notify` are the site's endpoints that are told of changes of its state.
    """

    name: Annotated[str, Text(64, names.PRODUCT, "a product's name such as hello")]
    url: Annotated[str, Text(2048, r"[^\s\x00-\x1f\x7f-][^\s\x00-\x1f\x7f]*", "the address of a git repository")]
    builders: Annotated[tuple[Builder, ...], Items(8)]
    targets: Annotated[tuple[Target, ...], Items(64)]
    tags: Annotated[tuple[RefPattern, ...], Items(100)] = ("*",)
    branches: Annotated[tuple[RefPattern, ...], Items(100)] = ()
    versions: Annotated[tuple[VersionPattern, ...], Items(100)] = names.VERSION_PATTERNS
    network: Network = Network.MIRROR
    isolation: Isolation = Isolation.AUTO
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    environment: Annotated[Mapping[VariableName, VariableValue], Items(200)] = field(default_factory=dict)
    packages: Annotated[tuple[DebianPackage, ...], Items(1000)] = ()
    spec: TreePath | None = None
    commands: Annotated[tuple[Command, ...], Items(100)] = ()
    tests: Annotated[tuple[Command, ...], Items(100)] = ()
    artifacts: Annotated[tuple[TreePath, ...], Items(100)] = ()
    results: Annotated[tuple[TreePath, ...], Items(50)] = RESULT_FILES
    phases: Annotated[Mapping[PhaseName, PhaseRecipe], Items(32)] = field(default_factory=dict)
    gates: Annotated[tuple[GateName, ...], Items(32)] = (Gate.BUILDS,)
    channels: Annotated[Mapping[ChannelName, ChannelRecipe], Items(32)] = field(default_factory=dict)
    depends: Annotated[tuple[ProductName, ...], Items(200)] = ()
    rebuild_with_dependencies: bool = False
    replays: Annotated[int, Between(0, 20)] = 3
    flaky: Flaky = Flaky.HOLDS
    reproducible: bool = False
    notify: Annotated[tuple[EndpointName, ...], Items(20)] = ()
    vary_date: bool = False

    def phase(self, name: str, general: str | None = None) -> PhaseRecipe:
        """What the product says about the phase `name`, or about `general`, whose case it is; else the defaults."""
        return self.phases.get(name) or self.phases.get(general or name) or PhaseRecipe()

    def gates_of(self, channel: str) -> tuple[str, ...]:
        """What the product demands before it goes into a channel, each once."""
        return tuple(dict.fromkeys((*self.gates, *self.channels.get(channel, ChannelRecipe()).gates)))


@dataclass(frozen=True, slots=True)
class Product:
    """A watched git repository and its recipe."""

    name: str
    url: str
    recipe: Recipe

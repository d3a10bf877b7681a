"""The order to run one phase: everything that a worker must know, in one JSON file.

It holds no credential, and names no file but the inputs and the output directory on the worker's host.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cleanroom_base.errors import InputError
from cleanroom_recipes import names, protocol
from cleanroom_recipes.codec import INTEGER_LIMIT, Between, Text, dumps, from_plain, loads
from cleanroom_recipes.conditions import Conditions
from cleanroom_recipes.events import Correlation, Sha256
from cleanroom_recipes.model import ChannelName, Input, RefKind, Target
from cleanroom_recipes.plan import PhasePlan

SIZE_LIMIT = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ConsumerPage:
    """What the consumer's page says to copy for one client of one image.

    `key` are the commands that fetch the key (empty for dnf, which does it by itself), `source` the file that makes the
    repository a source of packages, `place` its path. `url` is the repository's address in these, which guests find at
    another one.
    """

    url: Annotated[str, Text(2048, r"https?://\S+", "an address such as https://packages.example.org")]
    key: Annotated[str, Text(4096)]
    source: Annotated[str, Text(4096)]
    place: Annotated[
        str, Text(200, r"/etc/(apt/sources\.list\.d|yum\.repos\.d)/[a-z0-9.-]+", "a package source's path")
    ]


@dataclass(frozen=True, slots=True)
class Repository:
    """A channel of the published repository that guests have for a package source.

    `apt` and `yum`: whether it has such packages, or once had, for the phase's image. `key` is the public key that
    signs it, in ASCII armour; `retired` has those that signed packages once, or is empty. With `page` guests are not
    told of it by us: they do what the page says.
    """

    channel: ChannelName
    key: Annotated[str, Text(65_536)]
    apt: bool
    yum: bool
    retired: Annotated[str, Text(65_536)] = ""
    page: ConsumerPage | None = None


@dataclass(frozen=True, slots=True)
class PhaseRequest:
    """One phase of one attempt of a build.

    `expected_version` is what the tag promises (None: nothing). `source` is an uncompressed tar of exactly
    the commit's tree; `artifacts` the directory of the build phase's artifacts; `previous` the directory of
    the packages that are now published (None or empty: none). Inputs that the phase does not want may be None.
    Into `output`, an existing directory, go the phase's own artifacts. `conditions` are those of a trial or a
    replay; `installed` is what must be installed before a replay's tests (as the event StartingState says it).
    `repository` is what is published now in the channel into which the product goes (None: nothing yet).
    `candidates` is a directory with packages of another product with which this one is tried (None: none).
    `correlation` is what all log records that belong to one ref event have in common.
    `protocol` is the master's version of what they say to each other.
    """

    product: Annotated[str, Text(64, names.PRODUCT, "a product's name such as hello")]
    ref: Annotated[str, Text(1024)]
    kind: RefKind
    commit: Annotated[str, Text(64, names.COMMIT, "a commit in hexadecimal digits")]
    commit_time: datetime
    expected_version: Annotated[str, Text(128, names.VERSION, "a version")] | None
    target: Target
    attempt: Annotated[int, Between(0, INTEGER_LIMIT)]
    phase: PhasePlan
    source: Path | None
    artifacts: Path | None
    previous: Path | None
    output: Path
    conditions: Conditions = field(default_factory=Conditions)
    repository: Repository | None = None
    candidates: Path | None = None
    installed: Sha256 | None = None
    correlation: Correlation | None = None
    protocol: Annotated[int, Between(1, INTEGER_LIMIT)] = protocol.VERSION

    @property
    def snapshot_suffix(self) -> str:
        """What the version must end with, because this commit is no release; empty for a tag."""
        if self.kind is RefKind.TAG:
            return ""
        return names.snapshot_suffix(self.commit, f"{self.commit_time.astimezone(UTC):%Y%m%d%H%M%S}")

    def path(self, wanted: Input) -> Path | None:
        """The file or directory on the host of one of the inputs."""
        return {Input.SOURCE: self.source, Input.ARTIFACTS: self.artifacts, Input.PREVIOUS: self.previous}[wanted]


def encode(request: PhaseRequest) -> bytes:
    """The request as one line of JSON with its line end."""
    return dumps(request) + b"\n"


def decode(content: bytes) -> PhaseRequest:
    """Read a request. Raises InputError with everything that is wrong with it, or for a master of another version."""
    value = loads(content, most=SIZE_LIMIT, what="the request")
    if isinstance(value, dict):
        protocol.check_master(value.get("protocol", 1))
    return from_plain(PhaseRequest, value, what="the request")


def read(file: Path) -> PhaseRequest:
    """Read a request from a file. Raises InputError."""
    try:
        with file.open("rb") as stream:
            content = stream.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise InputError(f"cannot read the request {file}: {error.strerror}") from error
    return decode(content)

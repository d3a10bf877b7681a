"""One generation on the disk: what it lists, and the draft from which it is made."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_master.publish.package import Package, Stream

LISTING = "generation.json"


@dataclass(frozen=True, slots=True)
class Generation:
    """What a generation publishes. `at` is in UTC and whole seconds, and grows from one to the next.

    `streams` are all that consumers may have subscribed to: one that was emptied stays, without packages.
    """

    number: int
    at: datetime
    origin: str
    fingerprint: str
    streams: tuple[Stream, ...]
    packages: tuple[Package, ...]

    def of(self, stream: Stream) -> tuple[Package, ...]:
        """The packages of a stream, in order."""
        return tuple(package for package in self.packages if package.stream == stream)

    def apt_streams(self, channel: str) -> tuple[Stream, ...]:
        """The components of an apt suite, in order."""
        return tuple(stream for stream in self.streams if (stream.family, stream.channel) == ("apt", channel))

    def to_json(self) -> bytes:
        """The listing that stands in the generation."""
        value = dataclasses.asdict(self) | {"at": self.at.isoformat()}
        for entry, package in zip(value["packages"], self.packages, strict=True):
            entry["path"] = f"{root_of(package.stream)}/{package.path}"
        return json.dumps(value, indent=1).encode()


@dataclass(frozen=True, slots=True)
class Draft:
    """A generation that is being written to `root`.

    `earlier` are the directories of the generations before it, newest first, whose index files stay fetchable.
    `base` is the newest of them when it was made with the same key and origin: what did not change since is
    linked from its directory, and its signatures hold.
    """

    generation: Generation
    root: Path
    earlier: tuple[Path, ...]
    base: Generation | None

    def unchanged(self, stream: Stream) -> Path | None:
        """The base's directory when this stream has the same packages there, else None."""
        if self.base is None or stream not in self.base.streams:
            return None
        return self.earlier[0] if self.base.of(stream) == self.generation.of(stream) else None


def root_of(stream: Stream) -> str:
    """The root of the repository, below a generation, to which the paths of a stream's packages relate."""
    return "apt" if stream.family == "apt" else f"yum/{stream.image}/{stream.channel}"


def read(directory: Path) -> Generation:
    """Read a generation's listing; raises InfrastructureError when there is none, or it is none of ours."""
    try:
        value = json.loads((directory / LISTING).read_bytes())
        for entry in value["packages"]:
            del entry["path"]
        return Generation(
            number=value["number"],
            at=datetime.fromisoformat(value["at"]),
            origin=value["origin"],
            fingerprint=value["fingerprint"],
            streams=tuple(Stream(**stream) for stream in value["streams"]),
            packages=tuple(Package(**entry) for entry in value["packages"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InfrastructureError(f"the listing of generation {directory.name} cannot be read: {error}") from error

"""One generation on the disk: what it lists, and the draft from which it is made.

A generation consists of parts: what a stream has for one architecture. A part is a sequence of runs, each a few
hundred packages in the order in which they came. A run never changes: its listing is a file of its own, named by its
content, and its piece of an index is a piece of that file. So the next generation is written out of the pieces of the
one before, and what it costs follows what changed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_master.publish import storage
from cleanroom_master.publish.package import Family, Package, Stream
from cleanroom_master.publish.progress import Progress

LISTING = "generation.json"
LISTINGS = "listing"
# So many packages are in a run: more are more to write anew for one, fewer are more pieces.
RUN = 256


@dataclass(frozen=True, slots=True)
class Run:
    """Packages that came one after the other. `listing` is the sha256 of their listing.

    `sizes` says how many bytes their piece of an index has, plain and packed.
    """

    listing: str
    packages: int
    sizes: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, order=True, slots=True)
class PartName:
    """A stream and an architecture in it: `all`, `source`, or empty for a yum repository, which has them together."""

    stream: Stream
    architecture: str


@dataclass(frozen=True, slots=True)
class Part:
    """What a stream has for an architecture."""

    name: PartName
    runs: tuple[Run, ...]

    @property
    def identity(self) -> tuple[str, ...]:
        """What it holds: the same for parts with the same packages in the same order."""
        return tuple(run.listing for run in self.runs)


@dataclass(frozen=True, slots=True)
class Generation:
    """What a generation publishes. `at` and `dated` are in UTC and whole seconds.

    `at` grows from one to the next, and may lie ahead of the clock: it is the time of the files. `dated` never goes
    back: it is the date that clients compare with their own clocks. `streams` are all that consumers may have
    subscribed to: one that was emptied stays, without packages. `pages` are the files for people, with their sha256.
    `directory` is where its listings are. `keys` are the fingerprints of all keys that signed it, of which
    `fingerprint` is the one that consumers know longest.
    """

    number: int
    at: datetime
    dated: datetime
    origin: str
    fingerprint: str
    streams: tuple[Stream, ...]
    parts: Mapping[PartName, Part]
    directory: Path
    pages: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()

    @property
    def packages(self) -> tuple[Package, ...]:
        """All packages, in order."""
        return tuple(sorted(package for part in self.parts.values() for package in self.contents(part)))

    def of(self, stream: Stream) -> tuple[Package, ...]:
        """The packages of a stream, in order."""
        parts = [part for name, part in self.parts.items() if name.stream == stream]
        return tuple(sorted(package for part in parts for package in self.contents(part)))

    def contents(self, part: Part) -> Iterable[Package]:
        """The packages of a part, in the order of its runs."""
        return (package for run in part.runs for package in self.listed(run))

    def listed(self, run: Run) -> list[Package]:
        """The packages of a run. Raises InfrastructureError when its listing cannot be read."""
        try:
            return [Package(*values) for values in json.loads(self.listing_of(run))["packages"]]
        except (ValueError, KeyError, TypeError) as error:
            raise InfrastructureError(f"the listing {run.listing} cannot be read: {error}") from error

    def listing_of(self, run: Run) -> bytes:
        """The listing of a run, as it is on the disk. Raises InfrastructureError when it cannot be read."""
        place = self.directory / LISTINGS / f"{run.listing}.json"
        try:
            return place.read_bytes()
        except OSError as error:
            raise InfrastructureError(f"the listing {place} cannot be read: {error}") from error

    def part(self, stream: Stream, architecture: str) -> Part:
        """A part, empty where there is none."""
        name = PartName(stream, architecture)
        return self.parts.get(name, Part(name, ()))

    def apt_streams(self, channel: str) -> tuple[Stream, ...]:
        """The components of an apt suite, in order."""
        return tuple(stream for stream in self.streams if (stream.family, stream.channel) == ("apt", channel))

    def to_json(self) -> bytes:
        """The listing that stands in the generation: its runs, whose packages stand in listings of their own."""
        value = {
            "number": self.number,
            "at": self.at.isoformat(),
            "dated": self.dated.isoformat(),
            "origin": self.origin,
            "fingerprint": self.fingerprint,
            "keys": list(self.keys),
            "pages": self.pages,
            "streams": [dataclasses.asdict(stream) for stream in self.streams],
            "parts": [
                {
                    **dataclasses.asdict(part.name.stream),
                    "architecture": part.name.architecture,
                    "packages": sum(run.packages for run in part.runs),
                    "runs": [
                        {"listing": f"{LISTINGS}/{run.listing}.json", "packages": run.packages, "sizes": run.sizes}
                        for run in part.runs
                    ],
                }
                for part in self.parts.values()
            ],
        }
        return json.dumps(value, indent=1).encode()


@dataclass(frozen=True, slots=True)
class Draft:
    """A generation that is being written to `root`.

    `earlier` are the directories of the generations before it, newest first, whose index files stay fetchable.
    `base` is the newest of them when it was made with the same key and origin: what did not change since is linked
    from it, and its signatures hold. `start` is the generation out of whose pieces it is written, often the same.
    `valid` is how long clients shall believe a signature (None: for ever). `progress` says what is written.
    """

    generation: Generation
    root: Path
    earlier: tuple[Path, ...]
    base: Generation | None
    start: Generation | None
    valid: timedelta | None = None
    written: list[Path] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)

    def write(self, place: str | Path, content: bytes) -> None:
        """Write a new file; its time is the generation's, since clients ask "changed since?" in whole seconds."""
        file = self.root / place
        storage.write(file, content, modified=self.generation.at.timestamp())
        self.written.append(file)

    def link(self, existing: Path, place: str | Path) -> None:
        """Give a file of an earlier generation a name in this one."""
        storage.link(existing, self.root / place)

    def alike(self, other: Generation | None, names: Iterable[PartName]) -> bool:
        """Whether these parts hold the same as in another generation (None: no)."""
        if other is None:
            return False
        return all(
            self.generation.part(name.stream, name.architecture).identity
            == other.part(name.stream, name.architecture).identity
            for name in names
        )


def part_of(package: Package) -> PartName:
    """The part to which a package belongs."""
    return PartName(package.stream, "" if package.stream.family == "yum" else package.architecture)


def root_of(stream: Stream) -> str:
    """The root of the repository, below a generation, to which the paths of a stream's packages relate."""
    return "apt" if stream.family == "apt" else f"yum/{stream.image}/{stream.channel}"


def listing(packages: Iterable[Package]) -> tuple[bytes, str]:
    """The listing of a run, and its sha256."""
    fields = [one.name for one in dataclasses.fields(Package)]
    rows = [[getattr(package, name) for name in fields] for package in packages]
    content = json.dumps({"fields": fields, "packages": rows}, separators=(",", ":")).encode()
    return content, hashlib.sha256(content).hexdigest()


def read(directory: Path) -> Generation:
    """Read a generation's listing; raises InfrastructureError when there is none, or it is none of ours."""
    try:
        value = json.loads((directory / LISTING).read_bytes())
        parts = [_part(part) for part in value["parts"]]
        return Generation(
            number=value["number"],
            at=datetime.fromisoformat(value["at"]),
            # Before there were two times, the one was the other.
            dated=datetime.fromisoformat(value.get("dated", value["at"])),
            origin=value["origin"],
            fingerprint=value["fingerprint"],
            streams=tuple(Stream(**stream) for stream in value["streams"]),
            parts={part.name: part for part in parts},
            directory=directory,
            pages=value["pages"],
            keys=tuple(value.get("keys", [value["fingerprint"]])),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InfrastructureError(f"the listing of generation {directory.name} cannot be read: {error}") from error


def _part(value: dict[str, object]) -> Part:
    family: Family = "apt" if value["family"] == "apt" else "yum"
    name = PartName(Stream(family, str(value["channel"]), str(value["image"])), str(value["architecture"]))
    runs = value["runs"]
    if not isinstance(runs, list):
        raise TypeError("runs are no list")
    return Part(name, tuple(_run(run) for run in runs))


def _run(value: dict[str, object]) -> Run:
    sizes = value["sizes"]
    if not isinstance(sizes, dict):
        raise TypeError("sizes are no object")
    return Run(
        Path(str(value["listing"])).stem,
        int(str(value["packages"])),
        {name: (int(plain), int(packed)) for name, (plain, packed) in sizes.items()},
    )

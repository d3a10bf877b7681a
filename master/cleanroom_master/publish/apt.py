"""The indexes of an apt repository: one suite a channel, one component an image.

Source of the formats: the Debian repository format (wiki.debian.org/DebianRepository/Format). An index is there as
.gz alone; its Release file says what it is unpacked, as apt demands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import format_datetime
from pathlib import Path

from cleanroom_master.publish import control, pieces, progress
from cleanroom_master.publish.generation import Draft, Generation, Part, PartName, Run
from cleanroom_master.publish.package import PackageFile, Stream
from cleanroom_master.publish.pieces import Memory, Pieces
from cleanroom_master.publish.signing import Signer, signature_of

# Always there, if empty, so that a consumer can subscribe before the first package for its machine is out.
ARCHITECTURES = ("amd64", "arm64")
PACKED = ".gz"
SIGNED = ("Release", "Release.gpg", "InRelease")
_NOTHING = pieces.pack(b"")


@dataclass(frozen=True, slots=True)
class IndexFile:
    """A file that a Release file lists; `path` is relative to it, `size` is in bytes."""

    path: str
    sha256: str
    size: int

    @property
    def by_hash(self) -> Path:
        """The name that stays valid while newer files take the plain one."""
        return Path(self.path).parent / "by-hash" / "SHA256" / self.sha256

    @property
    def is_there(self) -> bool:
        """Whether there is such a file; of an unpacked index there is only its checksum."""
        return self.path.endswith(PACKED)


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a component: where it is below the suite, its kind, and the parts that are in it."""

    place: str
    kind: str
    parts: tuple[Part, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs whose pieces it consists of."""
        return tuple(run for part in self.parts for run in part.runs)


def index_names(name: PartName) -> tuple[str, ...]:
    """The kinds of index that tell of a part."""
    return ("Sources" if name.architecture == "source" else "Packages",)


def entry(package: PackageFile, index: str) -> bytes:
    """What an index says of a package, with the empty line after it."""
    return package.entries[index].encode() + b"\n"


def architectures(generation: Generation, channel: str) -> list[str]:
    """The architectures of a suite."""
    there = {name.architecture for name, part in generation.parts.items() if name.stream.channel == channel}
    return sorted((there | set(ARCHITECTURES)) - {"all", "source", ""})


def indexes(generation: Generation, channel: str) -> list[Index]:
    """All indexes of a suite."""
    return [
        index
        for stream in generation.apt_streams(channel)
        for index in (
            *(_packages(generation, stream, one) for one in architectures(generation, channel)),
            Index(f"{stream.image}/source/Sources", "Sources", (generation.part(stream, "source"),)),
        )
    ]


def _packages(generation: Generation, stream: Stream, architecture: str) -> Index:
    parts = (generation.part(stream, architecture), generation.part(stream, "all"))
    return Index(f"{stream.image}/binary-{architecture}/Packages", "Packages", parts)


def place_of(channel: str) -> Path:
    """Where a channel's suite is."""
    return Path("apt/dists") / channel


def write_channel(draft: Draft, channel: str, fresh: Pieces, memory: Memory, signer: Signer) -> None:
    """Write `apt/dists/<channel>`; what did not change is linked from a generation before."""
    place = place_of(channel)
    streams = draft.generation.apt_streams(channel)
    names = [name for index in indexes(draft.generation, channel) for name in (part.name for part in index.parts)]
    if draft.base is not None and draft.base.apt_streams(channel) == streams and draft.alike(draft.base, names):
        _link_channel(draft, draft.base.directory / place, place)
        draft.progress.written(progress.indexes(channel))
    else:
        files = [
            file for one in indexes(draft.generation, channel) for file in _write(draft, place, one, fresh, memory)
        ]
        draft.progress.written(progress.indexes(channel))
        _write_release(draft, place, channel, sorted(files, key=lambda file: file.path), signer)
    draft.progress.written(str(place))
    kept = {file.by_hash: earlier / file.path for earlier in _there(draft.earlier, place) for file in _files(earlier)}
    for by_hash, file in kept.items():
        draft.link(file, place / by_hash)


def listed(release: str) -> list[IndexFile]:
    """The files that a Release file of ours lists."""
    lines = release.partition("\nSHA256:\n")[2].splitlines()
    return [IndexFile(path, sha256, int(size)) for sha256, size, path in (line.split() for line in lines)]


def _there(directories: Iterable[Path], place: Path) -> list[Path]:
    return [directory / place for directory in directories if (directory / place / "Release").exists()]


def _files(suite: Path) -> list[IndexFile]:
    """The files of a suite that are there."""
    return [file for file in listed((suite / "Release").read_text()) if file.is_there]


def _write(draft: Draft, place: Path, index: Index, fresh: Pieces, memory: Memory) -> list[IndexFile]:
    """Write an index, or link it; returns what a Release file says of it."""
    packed_name = index.place + PACKED
    start = draft.start
    if start is not None and draft.alike(start, [part.name for part in index.parts]):
        suite = start.directory / place
        known = {file.path: file for file in listed((suite / "Release").read_text())} if suite.is_dir() else {}
        if packed_name in known:
            draft.link(suite / packed_name, place / packed_name)
            draft.link(suite / packed_name, place / known[packed_name].by_hash)
            return [known[index.place], known[packed_name]]
    there = {
        one.listing: fresh[index.kind, one.listing].packed for one in index.runs if (index.kind, one.listing) in fresh
    }
    if start is not None:
        there |= _taken(start, place, index)
    content = b"".join(there[run.listing] for run in index.runs) or _NOTHING.packed
    packed = IndexFile(packed_name, hashlib.sha256(content).hexdigest(), len(content))
    size = sum(run.sizes[index.kind][0] for run in index.runs)
    plain = IndexFile(index.place, memory.sha256(index.kind, index.runs, there), size)
    draft.write(place / packed_name, content)
    draft.link(draft.root / place / packed_name, place / packed.by_hash)
    return [plain, packed]


def _taken(start: Generation, place: Path, index: Index) -> dict[str, bytes]:
    """The pieces of an index that are taken over; those for all architectures from whichever index has them."""
    wanted = {run.listing for run in index.runs}
    found: dict[str, bytes] = {}
    for old in indexes(start, place.name):
        if old.kind == index.kind and wanted - found.keys() and any(run.listing in wanted for run in old.runs):
            content = pieces.read(start.directory / place / (old.place + PACKED))
            split = pieces.split(content, old.runs, old.kind)
            found |= {listing: piece for listing, piece in split.items() if listing in wanted}
    return found


def _write_release(draft: Draft, place: Path, channel: str, files: list[IndexFile], signer: Signer) -> None:
    generation = draft.generation
    fields = {
        "Origin": generation.origin,
        "Label": generation.origin,
        "Suite": channel,
        "Codename": channel,
        "Date": format_datetime(generation.dated, usegmt=True),
        **_validity(draft),
        "Acquire-By-Hash": "yes",
        # An architecture's index has the packages for all architectures too; there is no index for them alone.
        "No-Support-for-Architecture-all": "Packages",
        "Architectures": " ".join(architectures(generation, channel)),
        "Components": " ".join(stream.image for stream in generation.apt_streams(channel)),
        "Description": f"{generation.origin}, channel {channel}",
        "SHA256": "".join(f"\n {file.sha256} {file.size} {file.path}" for file in files),
    }
    release = control.write(fields).encode()
    # The end of the last line is not signed (RFC 4880, 7.1). So the signature of this text with one more empty line is
    # that of the Release file itself, and one signature does for both files.
    signed_text = signer.clear_sign(release + b"\n")
    for name, content in zip(SIGNED, (release, signature_of(signed_text), signed_text), strict=True):
        draft.write(place / name, content)


def _validity(draft: Draft) -> dict[str, str]:
    """Until when clients believe it; so nobody can give them an old state for ever."""
    if draft.valid is None:
        return {}
    return {"Valid-Until": format_datetime(draft.generation.dated + draft.valid, usegmt=True)}


def _link_channel(draft: Draft, existing: Path, place: Path) -> None:
    for file in _files(existing):
        draft.link(existing / file.path, place / file.path)
    for name in SIGNED:
        draft.link(existing / name, place / name)

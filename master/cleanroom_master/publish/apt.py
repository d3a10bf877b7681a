"""The indexes of an apt repository: one suite a channel, one component an image.

Source of the formats: the Debian repository format (wiki.debian.org/DebianRepository/Format).
"""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import format_datetime
from pathlib import Path

from cleanroom_master.publish import control, storage
from cleanroom_master.publish.generation import Draft
from cleanroom_master.publish.inspect import hash_file
from cleanroom_master.publish.package import Stream
from cleanroom_master.publish.pool import Pool
from cleanroom_master.publish.signing import Signer

# Always there, if empty, so that a consumer can subscribe before the first package for its machine is out.
ARCHITECTURES = ("amd64", "arm64")
# Higher presets take seconds for a large index and make it hardly smaller.
_XZ_PRESET = 2
_SUFFIXES = ("", ".gz", ".xz")


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


def write_channel(draft: Draft, channel: str, pool: Pool, signer: Signer) -> None:
    """Write `apt/dists/<channel>`; what did not change is linked from the generation before."""
    place = Path("apt/dists") / channel
    directory = draft.root / place
    streams = draft.generation.apt_streams(channel)
    same_components = draft.base is not None and draft.base.apt_streams(channel) == streams
    if same_components and all(draft.unchanged(stream) for stream in streams):
        _link_channel(draft.earlier[0] / place, directory)
    else:
        architectures = _architectures(draft, streams)
        for stream in streams:
            _write_component(draft, stream, architectures, pool)
        _write_release(draft, channel, streams, architectures, signer)
    for earlier in draft.earlier:
        _keep_indexes(earlier / place, directory)


def listed(release: str) -> list[IndexFile]:
    """The files that a Release file of ours lists."""
    lines = release.partition("\nSHA256:\n")[2].splitlines()
    return [IndexFile(path, sha256, int(size)) for sha256, size, path in (line.split() for line in lines)]


def _architectures(draft: Draft, streams: tuple[Stream, ...]) -> list[str]:
    packages = [package for stream in streams for package in draft.generation.of(stream)]
    found = {package.architecture for package in packages} - {"all", "source"}
    return sorted(found | set(ARCHITECTURES))


def _write_component(draft: Draft, stream: Stream, architectures: list[str], pool: Pool) -> None:
    place = Path("apt/dists") / stream.channel / stream.image
    packages = draft.generation.of(stream)
    base = draft.unchanged(stream)
    for architecture in architectures:
        wanted = [package for package in packages if package.architecture in (architecture, "all")]
        entries = (pool.facts(package.sha256).entries["Packages"] for package in wanted)
        _write_index(draft.root, base, place / f"binary-{architecture}/Packages", entries)
    sources = [package for package in packages if package.format == "dsc"]
    entries = (pool.facts(package.sha256).entries["Sources"] for package in sources)
    _write_index(draft.root, base, place / "source/Sources", entries)


def _write_index(root: Path, base: Path | None, index: Path, entries: Iterable[str]) -> None:
    """Write an index plain and compressed, or link all three from the base."""
    if base is not None and (base / index).exists():
        for suffix in _SUFFIXES:
            storage.link(base / f"{index}{suffix}", root / f"{index}{suffix}")
        return
    content = "\n".join(entries).encode()
    storage.write(root / index, content)
    storage.write(root / f"{index}.gz", gzip.compress(content, mtime=0))
    storage.write(root / f"{index}.xz", lzma.compress(content, preset=_XZ_PRESET))


def _write_release(
    draft: Draft, channel: str, streams: tuple[Stream, ...], architectures: list[str], signer: Signer
) -> None:
    directory = draft.root / "apt/dists" / channel
    files = []
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        file = IndexFile(str(path.relative_to(directory)), *hash_file(path))
        storage.link(path, directory / file.by_hash)
        files.append(file)
    generation = draft.generation
    fields = {
        "Origin": generation.origin,
        "Label": generation.origin,
        "Suite": channel,
        "Codename": channel,
        "Date": format_datetime(generation.at, usegmt=True),
        "Acquire-By-Hash": "yes",
        # An architecture's index has the packages for all architectures too; there is no index for them alone.
        "No-Support-for-Architecture-all": "Packages",
        "Architectures": " ".join(architectures),
        "Components": " ".join(stream.image for stream in streams),
        "Description": f"{generation.origin}, channel {channel}",
        "SHA256": "".join(f"\n {file.sha256} {file.size} {file.path}" for file in files),
    }
    release = control.write(fields).encode()
    with ThreadPoolExecutor() as threads:
        detached, clear = threads.submit(signer.detach_sign, release), threads.submit(signer.clear_sign, release)
    for name, content in (("Release", release), ("Release.gpg", detached.result()), ("InRelease", clear.result())):
        # A client asks "changed since?" in whole seconds, so the time must differ from the generation before.
        storage.write(directory / name, content, modified=generation.at.timestamp())


def _link_channel(existing: Path, directory: Path) -> None:
    for name in ("Release", "Release.gpg", "InRelease"):
        storage.link(existing / name, directory / name)
    for file in listed((existing / "Release").read_text()):
        storage.link(existing / file.path, directory / file.path)


def _keep_indexes(earlier: Path, directory: Path) -> None:
    """Keep the index files of an earlier generation fetchable, for a client that has read its InRelease."""
    release = earlier / "Release"
    for file in listed(release.read_text()) if release.exists() else ():
        storage.link(earlier / file.path, directory / file.by_hash)

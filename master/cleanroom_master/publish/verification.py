"""Whether a generation is fit to be shown: asked of the clients' own programs, and of every checksum.

What a consumer's apt, gpgv or rpm would refuse must never be switched to. The programs get private
directories and none of this machine's configuration, and no network: the generation is read as files.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import quote

from cleanroom_base.errors import CleanroomError, InfrastructureError, Problem
from cleanroom_base.run import CommandError, run
from cleanroom_master.publish import apt, envelope, generation, pieces, progress, yum
from cleanroom_master.publish.attachments import Attachments
from cleanroom_master.publish.generation import Draft, Generation, Run
from cleanroom_master.publish.inspect import hash_file
from cleanroom_master.publish.package import Package, Stream
from cleanroom_master.publish.progress import Progress
from cleanroom_master.publish.signing import Signer

_TIMEOUT = 300.0
# So many files are given to one rpm command: a command line has a limit.
_RPM_BATCH = 500
# In apt's indexes a blank at a line's beginning has a meaning.
_KEEPS_BLANKS = ("Packages", "Sources")
# Names that say what their content is.
_KEPT = re.compile(r"(?:/by-hash/SHA256/|/repodata/)([0-9a-f]{64})(?:-[a-z]+\.xml\.gz)?$")


def verify(
    directory: Path, number: int, since: Sequence[Path], signer: Signer, attachments: Attachments
) -> list[Problem]:
    """Check the generation in `directory`; what is the same in one of `since` is taken as checked.

    Without any, every file of the generation is looked at, and those that do not belong there are named.
    """
    try:
        listing, earlier = generation.read(directory), [generation.read(one) for one in since]
    except InfrastructureError as error:
        return [Problem(generation.LISTING, error.message)]
    return _verify(replace(listing, number=number), earlier, signer, attachments, Progress.complete())


def verify_draft(draft: Draft, since: Sequence[Generation], signer: Signer, attachments: Attachments) -> list[Problem]:
    """The same of a generation that is being written: each part is checked as soon as it is there.

    Raises what keeps the draft from being written.
    """
    return _verify(draft.generation, since, signer, attachments, draft.progress)


def _verify(
    listing: Generation, since: Sequence[Generation], signer: Signer, attachments: Attachments, written: Progress
) -> list[Problem]:
    with tempfile.TemporaryDirectory() as scratch:
        return _Check(listing, since, Path(scratch), signer, attachments, written).problems()


class _Check:
    """One check of one generation: `listing` says what it is to be, its directory what it is."""

    def __init__(
        self,
        listing: Generation,
        since: Sequence[Generation],
        scratch: Path,
        signer: Signer,
        attachments: Attachments,
        written: Progress,
    ) -> None:
        self._listing = listing
        self._directory = listing.directory
        self._written = written
        self._earlier = since
        self._since = [one.directory for one in since]
        self._scratch = scratch
        self._keyring = scratch / "keyring.gpg"
        self._keyring.write_bytes(signer.keyring())
        self._signer = signer
        self._public_key = signer.public_key()
        self._retired_keys = signer.retired_keys()
        self._fingerprints = tuple(key.fingerprint for key in signer.keys)
        self._attachments = attachments

    def problems(self) -> list[Problem]:
        """What is wrong. The checks run side by side, since they wait for programs and for what is being written."""
        listing = self._listing
        self._written.wait(progress.PACKAGES)
        try:
            known = {run.listing for earlier in self._earlier for run in _runs(earlier)}
            fresh = [run for run in _runs(listing) if run.listing not in known]
            new = self._new_packages(listing, fresh)
        except InfrastructureError as error:
            return [Problem(generation.LISTING, error.message)]
        channels = sorted({stream.channel for stream in listing.streams if stream.family == "apt"})
        # The slowest first.
        checks = [
            self._apt_client(listing),
            self._rpm_client([package for package in new if package.format == "rpm"]),
            *([self._apt_parser(listing, known)] if self._since else []),
            *(self._apt(listing, channel, known) for channel in channels),
            *(self._yum(listing, stream, known) for stream in listing.streams if stream.family == "yum"),
            self._key(),
            self._whole(listing, fresh),
            self._files(new),
            *([] if self._since else [self._strangers(listing)]),
        ]
        with ThreadPoolExecutor(len(checks)) as threads:
            return [problem for problems in threads.map(list[Problem], checks) for problem in problems]

    def _new_packages(self, listing: Generation, fresh: list[Run]) -> list[Package]:
        """The packages of new runs that were in none of the generations that were checked."""
        listings = {run.listing for run in _runs(listing)}
        known = set()
        for earlier in self._earlier:
            # What stayed in its run is not looked at; what moved to another was there in one that is gone.
            left = [run for run in _runs(earlier) if run.listing not in listings]
            known |= {package for run in left for package in earlier.listed(run)}
        return [package for run in fresh for package in listing.listed(run) if package not in known]

    def _files(self, packages: list[Package]) -> Iterator[Problem]:
        for package in packages:
            place = self._place(package)
            yield from self._same(place, package.sha256, package.size)
            yield from self._attachments.problems(package.sha256, self._directory / place, place)

    def _key(self) -> Iterator[Problem]:
        self._written.wait(progress.EVERYTHING)
        for place, keys in (("keys/cleanroom.asc", self._public_key), ("keys/retired.asc", self._retired_keys)):
            if pieces.read(self._directory / place) != keys:
                yield Problem(place, "is not what this repository's public keys are")

    def _whole(self, listing: Generation, fresh: list[Run]) -> Iterator[Problem]:
        """Whether what is on the disk is that listing, and ours, and the files that it names are as it says."""
        for one in fresh:
            yield from self._same(f"{generation.LISTINGS}/{one.listing}.json", one.listing)
        self._written.wait(progress.EVERYTHING)
        found = generation.read(self._directory)
        if replace(found, pages={}) != replace(listing, pages={}) or found.keys != self._fingerprints:
            yield Problem(generation.LISTING, "is not that of this generation and key")
        for place, sha256 in found.pages.items():
            yield from self._same(place, sha256)

    def _strangers(self, listing: Generation) -> Iterator[Problem]:
        """Files that do not belong here; what stays for readers of earlier generations is named by its content."""
        self._written.wait(progress.EVERYTHING)
        pages = generation.read(self._directory).pages
        own = {generation.LISTING, "keys/cleanroom.asc", "keys/retired.asc", *pages}
        own |= {f"{generation.LISTINGS}/{run.listing}.json" for run in _runs(listing)}
        for stream in listing.streams:
            root = f"apt/dists/{stream.channel}" if stream.family == "apt" else f"{generation.root_of(stream)}/repodata"
            signed: tuple[str, ...] = apt.SIGNED if stream.family == "apt" else yum.SIGNED
            own |= {f"{root}/{name}" for name in signed}
            if stream.family == "apt":
                own |= {f"{root}/{index.place}{apt.PACKED}" for index in apt.indexes(listing, stream.channel)}
        links = {f"{generation.root_of(stream)}/pool" for stream in listing.streams}
        for stream in listing.streams:
            if stream.family == "yum":
                own.add(f"{generation.root_of(stream)}/{yum.MIRRORS}")
                links.add(f"{generation.root_of(stream)}/{yum.STATES}")
        for inside, directories, names in os.walk(self._directory):
            for name in [*names, *(one for one in directories if Path(inside, one).is_symlink())]:
                place = str(Path(inside, name).relative_to(self._directory))
                kept = _KEPT.search(place)
                if kept is not None:
                    yield from self._same(place, kept[1])
                elif place not in own and place not in links:
                    yield Problem(place, "does not belong into the repository")

    def _apt(self, listing: Generation, channel: str, known: set[str]) -> Iterator[Problem]:
        place = str(apt.place_of(channel))
        directory = self._directory / place
        release = directory / "Release"
        self._written.wait(place)
        if not self._is_new(f"{place}/InRelease"):
            return
        yield from self._signature(f"{place}/Release.gpg", release)
        if not self._since or len(self._fingerprints) > 1:
            # Otherwise apt itself has just asked gpgv; but one of two signatures is enough for it.
            yield from self._signature(f"{place}/InRelease")
        if not release.is_file():
            return
        text = release.read_text(errors="replace")
        if f"\nDate: {format_datetime(listing.dated, usegmt=True)}\n" not in text and not self._since:
            yield from self._signed_before(place, listing)
        files = {file.path: file for file in apt.listed(text)}
        for file in files.values():
            if file.is_there and self._is_new(f"{place}/{file.path}"):
                yield from self._same(f"{place}/{file.path}", file.sha256, file.size)
                if not _one_file(directory / file.path, directory / file.by_hash):
                    yield from self._same(f"{place}/{file.by_hash}", file.sha256, file.size)
        for index in apt.indexes(listing, channel):
            packed = f"{index.place}{apt.PACKED}"
            if index.place not in files or packed not in files:
                yield Problem(f"{place}/{index.place}", "is not in the Release file")
            elif self._is_new(f"{place}/{packed}"):
                content = pieces.read(directory / packed)
                found = pieces.split(content, index.runs, index.kind)
                yield from self._listed_in(
                    f"{place}/{packed}", listing, index.runs, known, found, index.kind, _apt_lines
                )
                if not self._since:
                    yield from self._unpacked(f"{place}/{packed}", content, files[index.place])

    def _signed_before(self, place: str, listing: Generation) -> Iterator[Problem]:
        """A channel that did not change keeps the signature of an earlier generation; never of a later one."""
        modified = (self._directory / place / "Release").stat().st_mtime
        if modified > listing.at.timestamp():
            yield Problem(f"{place}/Release", "is later than its generation")

    @staticmethod
    def _unpacked(place: str, content: bytes, plain: apt.IndexFile) -> Iterator[Problem]:
        """Check what an index is when it is unpacked, as a reader that knows nothing of pieces sees it."""
        try:
            found = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            yield Problem(place, f"cannot be unpacked: {error}")
            return
        if (hashlib.sha256(found).hexdigest(), len(found)) != (plain.sha256, plain.size):
            yield Problem(place, f"is not {plain.sha256} when it is unpacked")

    def _listed_in(
        self,
        place: str,
        listing: Generation,
        runs: Sequence[Run],
        known: set[str],
        found: Mapping[str, bytes],
        kind: str,
        lines_of: Callable[[Package], set[str]],
    ) -> Iterator[Problem]:
        """Check that an index leads to every package of the runs that are new."""
        for one in runs:
            if one.listing in known:
                continue
            try:
                text = pieces.unpack(found[one.listing], one.sizes[kind][0]).decode(errors="replace")
            except (InfrastructureError, KeyError) as error:
                yield Problem(place, f"does not hold what the listing says: {error}")
                continue
            lines = {line if kind in _KEEPS_BLANKS else line.strip() for line in text.split("\n")}
            for package in listing.listed(one):
                if not lines_of(package) <= lines:
                    yield Problem(place, f"{package.file} is in no index")

    def _yum(self, listing: Generation, stream: Stream, known: set[str]) -> Iterator[Problem]:
        place = str(yum.place_of(stream))
        self._written.wait(generation.root_of(stream))
        repomd = self._directory / place / "repomd.xml"
        if not self._is_new(f"{place}/repomd.xml"):
            return
        yield from self._signature(f"{place}/repomd.xml.asc", repomd)
        if not repomd.is_file():
            return
        yield from self._state(stream, repomd.read_bytes())
        runs = listing.part(stream, "").runs
        for name, sha256 in yum.listed(repomd.read_bytes()):
            problems = list(self._same(f"{place}/{name}", sha256))
            yield from problems
            if name.endswith("-primary.xml.gz") and not problems:
                found = yum.split(pieces.read(self._directory / place / name), runs, "primary")
                yield from self._listed_in(place, listing, runs, known, found, "primary", _yum_lines)

    def _state(self, stream: Stream, repomd: bytes) -> Iterator[Problem]:
        """Whether the mirrorlist leads to these very files."""
        root = self._directory / generation.root_of(stream)
        state = yum.state_of(repomd)
        place = f"{generation.root_of(stream)}/{yum.MIRRORS}"
        try:
            lines = (root / yum.MIRRORS).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            yield Problem(place, f"cannot be read: {error}")
            return
        if len(lines) != 2 or lines[0] != f"{lines[1]}{yum.STATES}/{state}/":
            yield Problem(place, "does not lead to what the repository is now")
        there = f"{generation.root_of(stream)}/{yum.STATES}/{state}/repodata"
        content, signature = yum.SIGNED
        # They are the repository's own files, unless an attempt that failed in the same second made them.
        for name, sha256 in ((content, hashlib.sha256(repomd).hexdigest()), *yum.listed(repomd)):
            if not _one_file(self._directory / there / name, root / "repodata" / name):
                yield from self._same(f"{there}/{name}", sha256)
        if not _one_file(self._directory / there / signature, root / "repodata" / signature):
            yield from self._signature(f"{there}/{signature}", self._directory / there / content)

    def _apt_client(self, listing: Generation) -> Iterator[Problem]:
        """Run `apt-get update` on the channels that changed."""
        for channel in {stream.channel for stream in listing.streams if stream.family == "apt"}:
            self._written.wait(str(apt.place_of(channel)))
        changed = {
            stream
            for stream in listing.streams
            if stream.family == "apt" and self._is_new(f"apt/dists/{stream.channel}/InRelease")
        }
        architectures = ",".join(apt.ARCHITECTURES)
        options = f"[signed-by={self._keyring} arch={architectures}]"
        lines = [
            f"{kind} {options} {_address(self._directory / 'apt')} {stream.channel} {stream.image}\n"
            for stream in sorted(changed)
            for kind in ("deb", "deb-src")
            # Where only binary packages changed, nobody fetches the sources' index again.
            if kind == "deb" or self._is_new(f"apt/dists/{stream.channel}/{stream.image}/source/Sources{apt.PACKED}")
        ]
        # It checks signatures, checksums and that indexes can be unpacked. What stands in them is parsed where it is
        # new, below: apt would otherwise spend a second on 50,000 packages that it has read before.
        if lines:
            yield from self._update("client", lines, "pkgCacheFile::Generate=false" if self._since else "")

    def _apt_parser(self, listing: Generation, known: set[str]) -> Iterator[Problem]:
        """Let apt parse what the indexes say of new packages: one line that it cannot read spoils a whole index."""
        lists = dict(enumerate(self._fresh_texts(listing, known)))
        if not lists:
            return
        scratch = self._scratch / "parser"
        configuration = self._configure(
            scratch,
            [
                f"deb [trusted=yes arch={Path(place).parent.name.removeprefix('binary-')}] file:/{number} ./\n"
                for number, (place, _) in lists.items()
            ],
        )
        for number, (_, text) in lists.items():
            # Where `apt-get update` would have put it.
            (scratch / f"lists/_{number}_._Packages").write_bytes(text)
        try:
            run(["apt-cache", "gencaches"], environment={"APT_CONFIG": str(configuration)}, timeout=_TIMEOUT)
        except CommandError as error:
            yield Problem("apt", f"apt refuses it: {error.message}")

    def _fresh_texts(self, listing: Generation, known: set[str]) -> Iterator[tuple[str, bytes]]:
        """What the indexes of packages that changed say in their new runs, and where each is."""
        for channel in sorted({stream.channel for stream in listing.streams if stream.family == "apt"}):
            self._written.wait(progress.indexes(channel))
            for index in apt.indexes(listing, channel):
                place = f"apt/dists/{channel}/{index.place}{apt.PACKED}"
                fresh = [run for run in index.runs if run.listing not in known]
                if index.kind == "Packages" and fresh and self._is_new(place):
                    found = pieces.split(pieces.read(self._directory / place), index.runs, index.kind)
                    yield place, b"".join(pieces.unpack(found[one.listing], one.sizes[index.kind][0]) for one in fresh)

    def _update(self, name: str, sources: list[str], option: str) -> Iterator[Problem]:
        """Run `apt-get update` with directories of its own and these sources."""
        configuration = self._configure(self._scratch / name, sources)
        command = ["apt-get", "--quiet", "--error-on=any", *(["--option", option] if option else []), "update"]
        try:
            run(command, environment={"APT_CONFIG": str(configuration)}, timeout=_TIMEOUT)
        except CommandError as error:
            yield Problem("apt", f"apt refuses it: {error.message}")

    @staticmethod
    def _configure(scratch: Path, sources: list[str]) -> Path:
        """A configuration of apt with directories of its own and these sources."""
        scratch.mkdir()
        (scratch / "sources.list").write_text("".join(sources))
        configuration = scratch / "apt.conf"
        configuration.write_text(_apt_configuration(scratch, scratch / "sources.list"))
        return configuration

    def _rpm_client(self, packages: list[Package]) -> Iterator[Problem]:
        """Let rpm, trusting our key alone, check signatures and digests of new rpms."""
        if not packages:
            return
        rpm = ["rpm", "--dbpath", str(self._signer.rpm_database)]
        for first in range(0, len(packages), _RPM_BATCH):
            files = [self._directory / self._place(package) for package in packages[first : first + _RPM_BATCH]]
            strict = ["--define", "_pkgverify_level all", "--define", "_pkgverify_flags 0x0"]
            completed = run([*rpm, *strict, "--checksig", *files], timeout=_TIMEOUT, check=False)
            if completed.exit_status != 0:
                bad = [line for line in completed.text.splitlines() if "NOT OK" in line]
                yield Problem("yum", f"rpm refuses it: {'; '.join(bad) or completed.stderr.decode(errors='replace')}")

    def _signature(self, place: str, content: Path | None = None) -> Iterator[Problem]:
        """Check that every key that signs has signed `content`, or a signed text; gpgv is what apt itself asks."""
        found = {one.fingerprint for one in envelope.verified(self._keyring, self._directory / place, content)}
        for fingerprint in self._fingerprints:
            if fingerprint not in found:
                yield Problem(place, f"is not signed by this repository's key {fingerprint}")

    def _same(self, place: str, sha256: str, size: int | None = None) -> Iterator[Problem]:
        try:
            found, found_size = hash_file(self._directory / place)
        except (OSError, CleanroomError) as error:
            yield Problem(place, f"cannot be read: {error}")
            return
        if found != sha256 or (size is not None and found_size != size):
            yield Problem(place, f"has the sha256 {found} ({found_size} bytes), but {sha256} is listed")

    def _is_new(self, place: str) -> bool:
        """Whether a path below `dists` or `repodata` is another file than in every generation verified before."""
        return not any(_one_file(self._directory / place, earlier / place) for earlier in self._since)

    @staticmethod
    def _place(package: Package) -> str:
        return f"{generation.root_of(package.stream)}/{package.path}"


def _one_file(first: Path, second: Path) -> bool:
    """Whether two names are there and lead to the same file."""
    try:
        return first.samefile(second)
    except FileNotFoundError:
        return False


def _address(directory: Path) -> str:
    # With "file:" apt would start another of its programs, only to be told where the files are.
    return "copy:" + quote(str(directory))


def _runs(listing: Generation) -> list[Run]:
    return [run for part in listing.parts.values() for run in part.runs]


def _yum_lines(package: Package) -> set[str]:
    """The lines of an index that lead a client to a package."""
    checksum = f'<checksum type="sha256" pkgid="YES">{package.sha256}</checksum>'
    return {f'<location href="{package.path}"/>', checksum}


def _apt_lines(package: Package) -> set[str]:
    """The lines of an index that lead a client to a package."""
    if package.format == "dsc":
        directory = Path(package.path).parent
        return {f"Directory: {directory}", f" {package.sha256} {package.size} {package.file}"}
    return {f"Filename: {package.path}", f"SHA256: {package.sha256}"}


def _apt_configuration(scratch: Path, sources: Path) -> str:
    """Private directories for apt, and nothing from this machine's own configuration."""
    for name in ("lists/partial", "cache/archives/partial", "state"):
        (scratch / name).mkdir(parents=True)
    (scratch / "state/status").touch()
    values = {
        # Otherwise each of apt's programs asks dpkg.
        "APT::Architecture": apt.ARCHITECTURES[0],
        **{f"APT::Architectures::{number}": one for number, one in enumerate(apt.ARCHITECTURES)},
        "Dir::Etc::Main": "/dev/null",
        "Dir::Etc::Parts": "/dev/null",
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Trusted": "/dev/null",
        "Dir::Etc::TrustedParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::Etc::NetRC": "/dev/null",
        "Dir::Etc::NetRCParts": "/dev/null",
        "Dir::State": scratch / "state",
        "Dir::State::Lists": scratch / "lists",
        "Dir::State::Status": scratch / "state/status",
        "Dir::Cache": scratch / "cache",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "0",
        # A generation is dated after the one before, also where this machine's clock was set back since then. Ten
        # years: that the date is no nonsense. apt.conf(5).
        "Acquire::Max-FutureTime": "315360000",
    }
    return "".join(f'{key} "{value}";\n' for key, value in values.items())

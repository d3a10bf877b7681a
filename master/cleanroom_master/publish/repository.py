"""The published repository: a pool, numbered generations, and one link that says which of them is current.

    pool/ facts/        every published file once, and what it says of itself (see pool)
    attached/           what is published beside packages: signed provenance, bills of materials (see attachments)
    files/              the addresses of the files: names in the pool's directories, shared by all generations
    generations/N/      one immutable state of everything, apt and yum together
    current             a symbolic link to the generation that consumers see

A generation is written beside the others under another name, gets its own name by one rename, is verified, and
becomes visible by one more rename. Killed at any point, the old one or the new one is current. The addresses
only grow: a reader of an older generation can finish, and a new generation costs what changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cleanroom_base.errors import InfrastructureError, InputError, Problem
from cleanroom_master.publish import apt, generation, page, pieces, storage, verification, yum
from cleanroom_master.publish.attachments import Attachments, beside
from cleanroom_master.publish.composition import Composition, compose
from cleanroom_master.publish.generation import Draft, Generation
from cleanroom_master.publish.inspect import inspect
from cleanroom_master.publish.package import Package, PackageFile
from cleanroom_master.publish.page import Withdrawn
from cleanroom_master.publish.pieces import Memory
from cleanroom_master.publish.pool import Pool
from cleanroom_master.publish.signing import Signer

# The index files of this many generations stay fetchable in the next one.
KEPT_INDEXES = 16
_PARTIAL = ".partial"
_REMOVED = ".removed"
_UNFINISHED = (_PARTIAL, _REMOVED)
# Several publications in one second take the next seconds as theirs, so that none waits; clients accept a time
# that lies so little ahead (apt: 10 s, apt.conf(5), Acquire::Max-FutureTime).
_AHEAD = timedelta(seconds=2)
# A clock that is further behind the last generation than this was set back: waiting for it is no use.
_LONGEST_WAIT = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection of garbage removed: generations, and files with their size in bytes."""

    generations: tuple[int, ...]
    files: int
    size: int


class Repository:
    """The repository in a directory, written by one process at a time."""

    def __init__(
        self, directory: Path, signer: Signer, *, origin: str, url: str, valid: timedelta | None = None
    ) -> None:
        """`origin` names the site to consumers; `url` is the repository's address as they use it; `valid` is how long
        apt believes a signature (None: for ever).

        Raises InputError for an origin that is not one line of text.
        """
        if not origin.strip() or not origin.isprintable():
            raise InputError(f"the origin of a repository is one line of text, not {origin!r}")
        self.directory = directory
        self._signer = signer
        self._origin = origin
        self._url = url.rstrip("/")
        self._valid = valid
        self._pool = Pool(directory, signer)
        self.attachments = Attachments(directory / "attached")
        self._generations = directory / "generations"
        self._memory = Memory()

    @property
    def signer(self) -> Signer:
        """What signs it."""
        return self._signer

    @property
    def origin(self) -> str:
        """The name of the site."""
        return self._origin

    @property
    def url(self) -> str:
        """Its address as consumers use it, without a slash at its end."""
        return self._url

    def facts(self, sha256: str) -> PackageFile:
        """What a package in the pool says of itself. Raises InfrastructureError when the pool does not hold it."""
        return self._pool.facts(sha256)

    def attachment(self, package: Package, suffix: str) -> bytes | None:
        """What is published beside a package under its name and a suffix; None: nothing is."""
        try:
            return beside(self._address(package), suffix).read_bytes()
        except FileNotFoundError:
            return None

    def inspect(self, file: Path) -> PackageFile:
        """Read what a .deb, .dsc or .rpm file is; raises InputError (see inspect.inspect)."""
        with storage.reported(f"reading {file.name}"):
            return inspect(file)

    def add_to_pool(self, source: Path, sha256: str, *, file: str | None = None) -> PackageFile:
        """Take a package into the pool; an rpm is signed on its way in.

        `sha256` is the recorded one; `file` is the package's base name, when `source` does not bear it. Of a
        .dsc the files it names must have been added before, with `add_companion`. Raises InputError when content,
        checksum and name disagree, InfrastructureError when the disk is full.
        """
        with storage.reported(f"taking {file or source.name} into the pool"):
            return self._pool.add_package(source, sha256, file or source.name)

    def add_companion(self, source: Path, sha256: str) -> None:
        """Take a file of a source package (a tarball, a signature) into the pool."""
        with storage.reported(f"taking {source.name} into the pool"):
            self._pool.add_companion(source, sha256)

    def holds(self, sha256: str) -> bool:
        """Whether the pool has taken in a file, a package or a companion, that was built with this checksum."""
        return self._pool.holds(sha256)

    def build(
        self,
        number: int,
        packages: Iterable[Package],
        *,
        anew: bool = False,
        withdrawn: Sequence[Withdrawn] = (),
    ) -> Path:
        """Make generation `number`, which publishes just these packages, and return its directory.

        It is not visible before `switch`. `anew`: nothing is taken over that was written before. Raises
        VersionConflict when one version is there with two contents, InputError when the number is not above the
        current one's.
        """
        current = self.current()
        start = None if anew or current is None else self.read(current)
        there = set() if start is None else set(start.packages)
        wanted = set(packages)
        return self._make(number, start, wanted - there, there - wanted, withdrawn)

    def change(
        self,
        number: int,
        *,
        start: int | None,
        added: Iterable[Package],
        removed: Iterable[Package],
        withdrawn: Sequence[Withdrawn] = (),
        sign_anew: bool = False,
    ) -> Path:
        """Make generation `number` of what generation `start` publishes, without `removed` and with `added`.

        What it costs follows what changes. `withdrawn` is what the consumer's page tells of. With `sign_anew` what did
        not change is signed again too. Raises as `build` does.
        """
        from_start = None if start is None else self.read(start)
        return self._make(number, from_start, added, removed, withdrawn, sign_anew=sign_anew)

    def must_sign_anew(self) -> bool:
        """Whether the oldest signature of the current generation has lived through half of its validity, or it is not
        signed by the keys that sign now.
        """
        current = self.current()
        if current is None:
            return False
        if self._signed_by_others(self._path(current)):
            return True
        if self._valid is None:
            return False
        signed = [file.stat().st_mtime for file in self._path(current).glob("apt/dists/*/InRelease")]
        return bool(signed) and time.time() - min(signed) > self._valid.total_seconds() / 2

    def _signed_by_others(self, directory: Path) -> bool:
        """Whether a generation shows consumers other keys than those that sign now, or other facts of them."""
        keys = {"keys/cleanroom.asc": self._signer.public_key(), "keys/retired.asc": self._signer.retired_keys()}
        return any(pieces.read(directory / place) != content for place, content in keys.items())

    def _make(
        self,
        number: int,
        start: Generation | None,
        added: Iterable[Package],
        removed: Iterable[Package],
        withdrawn: Sequence[Withdrawn] = (),
        *,
        sign_anew: bool = False,
    ) -> Path:
        current = self.current()
        if current is not None and number <= current:
            raise InputError(f"generation {number} cannot follow generation {current}")
        directory = self._path(number)
        partial = directory.with_name(directory.name + _PARTIAL)
        with storage.reported(f"building generation {number} of the repository"):
            storage.remove(directory)
            storage.remove(partial)
            storage.make_lasting_directory(self._generations)
            storage.make_directory(partial)
            try:
                coming = list(added)
                composition = compose(self._pool, start, coming, removed)
                draft = self._draft(number, partial, start, composition)
                draft = replace(draft, base=None if sign_anew else draft.base, valid=self._valid)
                self._write(draft, composition, coming, withdrawn)
                storage.flush_new(partial, draft.written)
                partial.rename(directory)
            finally:
                storage.remove(partial)
            storage.flush(self._generations)
        return directory

    def readable(self, number: int) -> bool:
        """Whether a generation can be the start of another: it is there, and this version knows its form."""
        return self._read_if_possible(number) is not None

    def exists(self, number: int) -> bool:
        """Whether a generation is on the disk."""
        return self._path(number).is_dir()

    def verify(self, number: int, *, since: int | None = None, also: int | None = None) -> list[Problem]:
        """Check a generation as its clients do; an empty list means that it may be shown.

        With `since`, a generation that was verified, what is unchanged from it, or from `also`, is not looked at
        again. Without, every file is, and files are named that do not belong there.
        """
        with storage.reported(f"verifying generation {number} of the repository"):
            earlier = [self._path(one) for one in (since, also) if since is not None and one is not None]
            return verification.verify(self._path(number), earlier, self._signer, self.attachments)

    def switch(self, number: int) -> None:
        """Make a generation the one that consumers see: one rename."""
        if not self._path(number).is_dir():
            raise InfrastructureError(f"generation {number} of the repository does not exist")
        with storage.reported(f"switching to generation {number} of the repository"):
            storage.replace_symbolic_link(self.directory / "current", Path("generations") / str(number))

    def current(self) -> int | None:
        """The number of the generation that consumers see, None before the first."""
        try:
            return int((self.directory / "current").readlink().name)
        except FileNotFoundError:
            return None

    def read(self, number: int) -> Generation:
        """What a generation publishes; raises InfrastructureError when it is not there."""
        return generation.read(self._path(number))

    def numbers(self) -> list[int]:
        """The generations on the disk, newest first."""
        found = [int(path.name) for path in self._generations.glob("*") if path.name.isdecimal()]
        return sorted(found, reverse=True)

    def mend(self, package: Package, kept: Path | None) -> bool:
        """Bring a package's files back to what was published, where they are not; False: they cannot be had again.

        `kept` is the artifact from which it was made.
        """
        with storage.reported(f"mending {package.file}"):
            if not self._pool.mend(package, kept):
                return False
            address = self._address(package)
            files = {package.file: package.sha256, **self._pool.facts(package.sha256).companions}
            for file, sha256 in files.items():
                name = address.with_name(file)
                if not name.is_file() or not name.samefile(self._pool.path(sha256)):
                    storage.remove(name)
            self._place(package, address)
        return True

    def remove_generations(self, *, keep: Set[int]) -> tuple[int, ...]:
        """Remove generations but these; returns which."""
        gone = tuple(number for number in self.numbers() if number not in keep)
        with storage.reported("removing old generations of the repository"):
            for number in gone:
                # Under another name first: one that is half there would be taken for whole after a kill.
                going = self._path(number).with_suffix(_REMOVED)
                self._path(number).rename(going)
                storage.remove(going)
        return gone

    def remove_unneeded(self, needed: Iterable[Package], built: Set[str], *, older_than: timedelta) -> tuple[int, int]:
        """Remove published files that are none of these packages' (`built` are the checksums that they were built
        with) and that came before that time.

        Returns how many files, and how many bytes. Nothing may be on its way into the pool meanwhile.
        """
        packages = list(needed)
        before = time.time() - older_than.total_seconds()
        roots = {package.stream: generation.root_of(package.stream) for package in packages}
        addresses = {str(Path(roots[package.stream], package.path).parent) for package in packages}
        with storage.reported("removing files that no generation has"):
            for directory in (self.directory / "files").glob("**/pool/*/*"):
                place = str(directory.relative_to(self.directory / "files"))
                if place not in addresses and directory.stat().st_mtime < before:
                    storage.remove(directory)
            published = {package.sha256 for package in packages}
            self.attachments.remove_unneeded(published, before=before)
            return self._pool.remove_unneeded(published, built, before=before)

    def discard_unfinished(self) -> None:
        """Remove what a killed process left: files on their way in, and generations that were never shown."""
        with storage.reported("tidying the repository"):
            self._pool.discard_unfinished()
        self.discard_unshown()

    def discard_unshown(self) -> None:
        """Remove generations that were never shown, or were being removed; what is on its way in stays."""
        current = self.current() or 0
        with storage.reported("tidying the repository"):
            for directory in self._generations.glob("*"):
                never_shown = directory.name.isdecimal() and int(directory.name) > current
                if never_shown or directory.suffix in _UNFINISHED:
                    storage.remove(directory)

    def _path(self, number: int) -> Path:
        return self._generations / str(number)

    def _draft(self, number: int, partial: Path, start: Generation | None, composition: Composition) -> Draft:
        current = self.current()
        last = None if current is None else self._read_if_possible(current)
        streams = {name.stream for name in composition.parts} | set(last.streams if last else ())
        new = Generation(
            number=number,
            at=_moment_after(last),
            origin=self._origin,
            fingerprint=self._signer.key.fingerprint,
            keys=tuple(key.fingerprint for key in self._signer.keys),
            streams=tuple(sorted(streams)),
            parts={name: composition.parts[name] for name in sorted(composition.parts)},
            directory=partial,
        )
        alike = last is not None and (last.origin, last.keys) == (new.origin, new.keys)
        # What is made anew has no start, and nothing is linked into it.
        return Draft(new, partial, self._earlier(current), last if alike and start is not None else None, start)

    def _read_if_possible(self, number: int) -> Generation | None:
        """A generation, None where its listing was damaged, or written by a version before there were runs."""
        try:
            return self.read(number)
        except InfrastructureError:
            return None

    def _earlier(self, current: int | None) -> tuple[Path, ...]:
        shown = [number for number in self.numbers() if number <= (current or 0)]
        return tuple(self._path(number) for number in shown[:KEPT_INDEXES])

    def _write(
        self, draft: Draft, composition: Composition, added: Iterable[Package], withdrawn: Sequence[Withdrawn]
    ) -> None:
        new = draft.generation
        self._place_files(draft, added)
        self._write_listings(draft, composition)
        channels = sorted({stream.channel for stream in new.streams if stream.family == "apt"})
        fresh = composition.fresh
        # Side by side: most of the time goes into waiting for gpg and the compressors.
        with ThreadPoolExecutor() as threads:
            written = [
                threads.submit(apt.write_channel, draft, one, fresh, self._memory, self._signer) for one in channels
            ]
            written += [
                threads.submit(yum.write_repository, draft, stream, fresh, self._signer)
                for stream in new.streams
                if stream.family == "yum"
            ]
            pages = threads.submit(page.write, draft, self._url, self._signer, withdrawn, self.attachments)
        for one in written:
            one.result()
        draft.write("keys/cleanroom.asc", self._signer.public_key())
        if retired := self._signer.retired_keys():
            draft.write("keys/retired.asc", retired)
        draft.write(generation.LISTING, replace(new, pages=pages.result()).to_json())

    @staticmethod
    def _write_listings(draft: Draft, composition: Composition) -> None:
        """Bring the listings of all runs into the generation."""
        storage.make_directory(draft.root / generation.LISTINGS)
        for part in draft.generation.parts.values():
            for run in part.runs:
                place = f"{generation.LISTINGS}/{run.listing}.json"
                if run.listing not in composition.listings:
                    assert draft.start is not None
                    draft.link(draft.start.directory / place, place)
                elif not (draft.root / place).exists():
                    draft.write(place, composition.listings[run.listing])

    def _place_files(self, draft: Draft, added: Iterable[Package]) -> None:
        """Give the files of packages their addresses, and lead the generation's `pool`s there."""
        for package in added:
            address = self._address(package)
            if not address.exists():
                self._place(package, address)
            elif self.attachments.place(package.sha256, address):
                storage.flush(address.parent)
        for stream in draft.generation.streams:
            root = Path(generation.root_of(stream))
            link = draft.root / root / "pool"
            if not link.is_symlink():
                storage.make_directory(link.parent)
                storage.make_lasting_directory(self.directory / "files" / root / "pool")
                up = Path(*[".."] * (len(root.parts) + 2))
                link.symlink_to(up / "files" / root / "pool")

    def _address(self, package: Package) -> Path:
        return self.directory / "files" / generation.root_of(package.stream) / package.path

    def _place(self, package: Package, address: Path) -> None:
        storage.make_lasting_directory(address.parent)
        for file, sha256 in self._pool.facts(package.sha256).companions.items():
            storage.link(self._pool.path(sha256), address.with_name(file))
        self.attachments.place(package.sha256, address)
        # The package itself last: its name says that all of its files are there.
        storage.link(self._pool.path(package.sha256), address)
        storage.flush(address.parent)


def _moment_after(last: Generation | None) -> datetime:
    """Now, in whole seconds, but later than the last generation, if need be a little ahead of the clock.

    Clients compare times in whole seconds; two generations of one second would look like one to them.
    """
    now = datetime.now(UTC)
    earliest = last.at + timedelta(seconds=1) if last else now.replace(microsecond=0)
    too_early = earliest - now - _AHEAD
    if timedelta(0) < too_early <= _LONGEST_WAIT:
        time.sleep(too_early.total_seconds())
    return max(datetime.now(UTC).replace(microsecond=0), earliest)

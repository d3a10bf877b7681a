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

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cleanroom_base.errors import InfrastructureError, InputError, Problem
from cleanroom_master.publish import apt, generation, page, pieces, progress, storage, verification, yum
from cleanroom_master.publish.attachments import Attachments, beside
from cleanroom_master.publish.composition import Composition, compose
from cleanroom_master.publish.generation import Draft, Generation
from cleanroom_master.publish.inspect import inspect
from cleanroom_master.publish.package import Package, PackageFile, Stream
from cleanroom_master.publish.page import Origins, Withdrawn
from cleanroom_master.publish.pieces import Memory
from cleanroom_master.publish.pool import Pool
from cleanroom_master.publish.signing import Signer

# The index files of this many generations stay fetchable in the next one.
KEPT_INDEXES = 16
_PARTIAL = ".partial"
_REMOVED = ".removed"
_UNFINISHED = (_PARTIAL, _REMOVED)


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection of garbage removed: generations, and files with their size in bytes."""

    generations: tuple[int, ...]
    files: int
    size: int


class Unacceptable(InputError):
    """What a generation would publish is nothing that clients would accept."""


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
        # Blanks at a line's end are not a part of what a signed text says.
        self._origin = origin.strip()
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
        origins: Origins = page.unknown,
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
        return self._make(number, start, wanted - there, there - wanted, withdrawn, origins)

    def change(
        self,
        number: int,
        *,
        start: int | None,
        added: Iterable[Package],
        removed: Iterable[Package],
        withdrawn: Sequence[Withdrawn] = (),
        origins: Origins = page.unknown,
        sign_anew: bool = False,
    ) -> Path:
        """Make generation `number` of what generation `start` publishes, without `removed` and with `added`.

        What it costs follows what changes. It is verified while it is written, but for what is the same in `start` or
        in the current generation. `withdrawn` and `origins` are what the consumer's page tells of. With `sign_anew`
        what did not change is signed again too. Raises as `build` does, and Unacceptable.
        """
        from_start = None if start is None else self.read(start)
        return self._make(number, from_start, added, removed, withdrawn, origins, sign_anew=sign_anew, check=True)

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
        origins: Origins = page.unknown,
        *,
        sign_anew: bool = False,
        check: bool = False,
    ) -> Path:
        current = self.current()
        if current is not None and number <= current:
            raise InputError(f"generation {number} cannot follow generation {current}")
        last = start if start is not None and start.number == current else self._read_if_possible(current)
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
                draft = self._draft(number, partial, last, start, composition)
                draft = replace(draft, base=None if sign_anew else draft.base, valid=self._valid)
                with self._checking(draft, last, start) if check else nullcontext():
                    self._write(draft, composition, coming, withdrawn, origins)
                    storage.flush_new(partial, draft.written)
                partial.rename(directory)
            finally:
                storage.remove(partial)
            storage.flush(self._generations)
        return directory

    @contextmanager
    def _checking(self, draft: Draft, last: Generation | None, start: Generation | None) -> Iterator[None]:
        """Verify a draft while it is written. Raises Unacceptable at the end."""
        verified = [one for one in (last, None if start is last else start) if one is not None]
        with ThreadPoolExecutor(1) as threads:
            checked = threads.submit(verification.verify_draft, draft, verified, self._signer, self.attachments)
            try:
                yield
            except BaseException as error:
                draft.progress.failed(error)
                raise
            problems = checked.result()
        if problems:
            raise Unacceptable("a client would not accept the repository", problems=problems)

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
            return verification.verify(self._path(number), number, earlier, self._signer, self.attachments)

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

    def remove_generations(self, *, keep: Set[int], dry: bool = False) -> tuple[int, ...]:
        """Remove generations but these, or (`dry`) only say so; returns which."""
        gone = tuple(number for number in self.numbers() if number not in keep)
        if dry:
            return gone
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
            files = self.directory / "files"
            # Not by way of the states, which lead to the same files.
            for directory in itertools.chain(files.glob("apt/pool/*/*"), files.glob("yum/*/*/pool/*/*")):
                place = str(directory.relative_to(files))
                if place not in addresses and directory.stat().st_mtime < before:
                    storage.remove(directory)
            self._remove_states(before)
            published = {package.sha256 for package in packages}
            self.attachments.remove_unneeded(published, before=before)
            return self._pool.remove_unneeded(published, built, before=before)

    def unneeded(self, needed: Iterable[Package], built: Set[str], *, older_than: timedelta) -> tuple[int, int]:
        """How many files `remove_unneeded` would remove, and how many bytes; nothing is changed."""
        before = time.time() - older_than.total_seconds()
        return self._pool.unneeded({package.sha256 for package in needed}, built, before=before)

    def _remove_states(self, before: float) -> None:
        """Remove the states of yum repositories that no generation has, and that came before a time."""
        repomds = [file for number in self.numbers() for file in self._path(number).glob("yum/*/*/repodata/repomd.xml")]
        there = {yum.state_of(repomd.read_bytes()) for repomd in repomds}
        for state in (self.directory / "files").glob(f"yum/*/*/{yum.STATES}/*"):
            if state.name not in there and state.stat().st_mtime < before:
                storage.remove(state)

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

    def _draft(
        self,
        number: int,
        partial: Path,
        last: Generation | None,
        start: Generation | None,
        composition: Composition,
    ) -> Draft:
        """A draft that follows `last` and departs from `start`."""
        streams = {name.stream for name in composition.parts} | set(last.streams if last else ())
        new = Generation(
            number=number,
            at=_moment_after(last.at + timedelta(seconds=1) if last else None),
            dated=_moment_after(last.dated if last else None),
            origin=self._origin,
            fingerprint=self._signer.key.fingerprint,
            keys=tuple(key.fingerprint for key in self._signer.keys),
            streams=tuple(sorted(streams)),
            parts={name: composition.parts[name] for name in sorted(composition.parts)},
            directory=partial,
        )
        alike = last is not None and (last.origin, last.keys) == (new.origin, new.keys)
        # What is made anew has no start, and nothing is linked into it.
        return Draft(new, partial, self._earlier(), last if alike and start is not None else None, start)

    def _read_if_possible(self, number: int | None) -> Generation | None:
        """A generation, None where its listing was damaged, or written by a version before there were runs."""
        try:
            return None if number is None else self.read(number)
        except InfrastructureError:
            return None

    def _earlier(self) -> tuple[Path, ...]:
        """The generations that consumers saw, as far as their indexes stay."""
        current = self.current() or 0
        shown = [number for number in self.numbers() if number <= current]
        return tuple(self._path(number) for number in shown[:KEPT_INDEXES])

    def _write(
        self,
        draft: Draft,
        composition: Composition,
        added: Iterable[Package],
        withdrawn: Sequence[Withdrawn],
        origins: Origins,
    ) -> None:
        new = draft.generation
        self._place_files(draft, added)
        self._write_listings(draft, composition)
        draft.progress.written(progress.PACKAGES)
        channels = sorted({stream.channel for stream in new.streams if stream.family == "apt"})
        repositories = [stream for stream in new.streams if stream.family == "yum"]
        fresh = composition.fresh
        # Side by side: most of the time goes into waiting for gpg and the compressors.
        with ThreadPoolExecutor() as threads:
            written = [
                threads.submit(apt.write_channel, draft, one, fresh, self._memory, self._signer) for one in channels
            ]
            written += [threads.submit(yum.write_repository, draft, one, fresh) for one in repositories]
            draft.write("keys/cleanroom.asc", self._signer.public_key())
            if retired := self._signer.retired_keys():
                draft.write("keys/retired.asc", retired)
            for one in written:
                one.result()
            # gpg signs one after the other, and what was signed above is what apt's own program waits for.
            pages = threads.submit(page.write, draft, self._url, self._signer, withdrawn, self.attachments, origins)
            signed = [threads.submit(self._sign_repository, draft, one) for one in repositories]
            for done in signed:
                done.result()
            draft.write(generation.LISTING, replace(new, pages=pages.result()).to_json())
            draft.progress.written(progress.EVERYTHING)

    def _sign_repository(self, draft: Draft, stream: Stream) -> None:
        """Sign a yum repository, and give its state an address of its own."""
        yum.sign_repository(draft, stream, self._signer)
        repodata = draft.root / yum.place_of(stream)
        repomd = (repodata / "repomd.xml").read_bytes()
        state = self._states(stream) / yum.state_of(repomd)
        storage.make_lasting_directory(state / "repodata")
        # The repomd.xml last: it says that all is there.
        for name in (*(file for file, _ in yum.listed(repomd)), "repomd.xml.asc", "repomd.xml"):
            storage.link(repodata / name, state / "repodata" / name)
        if not (state / "pool").is_symlink():
            (state / "pool").symlink_to("../../pool")
        storage.flush(state / "repodata")
        storage.flush(state)
        root = generation.root_of(stream)
        self._lead(draft, f"{root}/{yum.STATES}")
        draft.write(f"{root}/{yum.MIRRORS}", yum.mirrors(self._url, stream, state.name).encode())
        draft.progress.written(root)

    def _states(self, stream: Stream) -> Path:
        return self.directory / "files" / generation.root_of(stream) / yum.STATES

    def _lead(self, draft: Draft, place: str) -> None:
        """Lead a directory of a generation to that of all generations."""
        link = draft.root / place
        if not link.is_symlink():
            storage.make_directory(link.parent)
            storage.make_lasting_directory(self.directory / "files" / place)
            up = Path(*[".."] * (len(Path(place).parts) + 1))
            link.symlink_to(up / "files" / place)

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
        addresses = [(package, self._address(package)) for package in added]
        new = [(package, address) for package, address in addresses if not address.exists()]
        for package, address in addresses:
            if address.exists() and self.attachments.place(package.sha256, address):
                storage.flush(address.parent)
        # Several at a time: the disk brings those that wait together down with one write of its journal.
        with ThreadPoolExecutor() as threads:
            for placed in [threads.submit(self._place, package, address) for package, address in new]:
                placed.result()
        for stream in draft.generation.streams:
            self._lead(draft, f"{generation.root_of(stream)}/pool")

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


def _moment_after(earliest: datetime | None) -> datetime:
    """Now, in whole seconds, but not before a moment.

    Clients ask "changed since?" in whole seconds, and two files of one second would look like one to them. So each
    generation's files have a second of their own, if need be ahead of the clock. The date that is signed is no file's
    time: several generations may have the same, and none has one of the future, which clients would refuse.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    return max(now, earliest) if earliest else now

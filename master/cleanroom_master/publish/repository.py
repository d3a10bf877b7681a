"""The published repository: a pool, numbered generations, and one link that says which of them is current.

    pool/ facts/        every published file once, and what it says of itself (see pool)
    files/              the addresses of the files: names in the pool's directories, shared by all generations
    generations/N/      one immutable state of everything, apt and yum together
    current             a symbolic link to the generation that consumers see

A generation is written beside the others under another name, gets its own name by one rename, is verified, and
becomes visible by one more rename. Killed at any point, the old one or the new one is current. The addresses
only grow: a reader of an older generation can finish, and a new generation costs what changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cleanroom_base.errors import InfrastructureError, InputError, Problem
from cleanroom_master.publish import apt, generation, page, storage, verification, yum
from cleanroom_master.publish.generation import Draft, Generation
from cleanroom_master.publish.inspect import inspect
from cleanroom_master.publish.package import Package, PackageFile, Stream, VersionConflict, conflicts
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


class Repository:
    """The repository in a directory, written by one process at a time."""

    def __init__(self, directory: Path, signer: Signer, *, origin: str, url: str) -> None:
        """`origin` names the site to consumers; `url` is the repository's address as they use it.

        Raises InputError for an origin that is not one line of text.
        """
        if not origin.strip() or not origin.isprintable():
            raise InputError(f"the origin of a repository is one line of text, not {origin!r}")
        self.directory = directory
        self._signer = signer
        self._origin = origin
        self._url = url.rstrip("/")
        self._pool = Pool(directory, signer)
        self._generations = directory / "generations"

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

    def build(self, number: int, packages: Iterable[Package]) -> Path:
        """Make generation `number`, which publishes just these packages, and return its directory.

        It is not visible before `switch`. Raises VersionConflict when one version is there with two contents,
        InputError when the number is not above the current one's.
        """
        current = self.current()
        if current is not None and number <= current:
            raise InputError(f"generation {number} cannot follow generation {current}")
        wanted = tuple(sorted(set(packages)))
        problems = conflicts(wanted)
        if problems:
            raise VersionConflict("the same version of a package was published with other bytes", problems=problems)
        directory = self._path(number)
        partial = directory.with_name(directory.name + _PARTIAL)
        with storage.reported(f"building generation {number} of the repository"):
            storage.remove(directory)
            storage.remove(partial)
            storage.make_lasting_directory(self._generations)
            storage.make_directory(partial)
            try:
                self._write(self._draft(number, partial, wanted))
                storage.flush_tree(partial)
                partial.rename(directory)
            finally:
                storage.remove(partial)
            storage.flush(self._generations)
        return directory

    def change(
        self,
        number: int,
        *,
        start: int | None,
        added: Iterable[Package],
        removed: Iterable[Package],
        anew: bool = False,
    ) -> Path:
        """Make generation `number` of what generation `start` publishes, without `removed` and with `added`.

        `anew`: nothing is taken over that was written before. Raises as `build` does.
        """
        there = set() if start is None else set(self.read(start).packages)
        del anew
        return self.build(number, (there - set(removed)) | set(added))

    def exists(self, number: int) -> bool:
        """Whether a generation is on the disk."""
        return self._path(number).is_dir()

    def verify(self, number: int, *, since: int | None = None) -> list[Problem]:
        """Check a generation as its clients do; an empty list means that it may be shown.

        With `since`, a generation that was verified, what is unchanged from it is not looked at again.
        """
        with storage.reported(f"verifying generation {number} of the repository"):
            earlier = None if since is None else self._path(since)
            return verification.verify(self._path(number), earlier, self._signer)

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

    def _draft(self, number: int, partial: Path, packages: tuple[Package, ...]) -> Draft:
        current = self.current()
        last = None if current is None else generation.read(self._path(current))
        streams = {package.stream for package in packages} | set(last.streams if last else ())
        new = Generation(
            number=number,
            at=_moment_after(last),
            origin=self._origin,
            fingerprint=self._signer.key.fingerprint,
            streams=tuple(sorted(streams)),
            packages=packages,
        )
        same = last is not None and (last.origin, last.fingerprint) == (new.origin, new.fingerprint)
        return Draft(new, partial, self._earlier(current), last if same else None)

    def _earlier(self, current: int | None) -> tuple[Path, ...]:
        numbers = [int(path.name) for path in self._generations.glob("*") if path.name.isdecimal()]
        shown = sorted((number for number in numbers if number <= (current or 0)), reverse=True)
        return tuple(self._path(number) for number in shown[:KEPT_INDEXES])

    def _write(self, draft: Draft) -> None:
        new = draft.generation
        for stream in new.streams:
            self._place_files(draft, stream)
        channels = sorted({stream.channel for stream in new.streams if stream.family == "apt"})
        # Side by side: most of the time goes into waiting for gpg and the compressors.
        with ThreadPoolExecutor() as threads:
            written = [threads.submit(apt.write_channel, draft, one, self._pool, self._signer) for one in channels]
            written += [
                threads.submit(yum.write_repository, draft, stream, self._pool, self._signer)
                for stream in new.streams
                if stream.family == "yum"
            ]
        for one in written:
            one.result()
        key = self._signer.public_key()
        storage.write(draft.root / "keys/cleanroom.asc", key)
        page.write(draft, self._url, key, self._signer.key)
        storage.write(draft.root / generation.LISTING, new.to_json())

    def _place_files(self, draft: Draft, stream: Stream) -> None:
        """Give the files of a stream their addresses, and lead the generation's `pool` there."""
        root = Path(generation.root_of(stream))
        for package in draft.generation.of(stream):
            address = self.directory / "files" / root / package.path
            if not address.exists():
                self._place(package, address)
        link = draft.root / root / "pool"
        if not link.is_symlink():
            storage.make_directory(link.parent)
            storage.make_lasting_directory(self.directory / "files" / root / "pool")
            up = Path(*[".."] * (len(root.parts) + 2))
            link.symlink_to(up / "files" / root / "pool")

    def _place(self, package: Package, address: Path) -> None:
        storage.make_lasting_directory(address.parent)
        for file, sha256 in self._pool.facts(package.sha256).companions.items():
            storage.link(self._pool.path(sha256), address.with_name(file))
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

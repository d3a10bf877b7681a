"""The publisher: takes passed releases from the outbox and makes the next generation of them.

It alone holds the signing key. The record says what a generation is to hold before it is written; after a kill
the disk says whether it became visible, and the record follows the disk. What the surroundings spoil stays in
the outbox and is tried again; what is wrong with a release is refused, with the reason, and spoils no other.
"""

from __future__ import annotations

import contextlib
import fcntl
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from cleanroom_base.errors import CleanroomError, InfrastructureError, InputError
from cleanroom_base.settings import Settings, load
from cleanroom_db import generations, publications
from cleanroom_db.cluster import open_database
from cleanroom_db.connection import Database
from cleanroom_db.generations import NewPackage
from cleanroom_db.listen import PUBLICATION, Listener
from cleanroom_db.publications import Pending, ReleasedFile
from cleanroom_db.roles import Role
from cleanroom_master.conflicts.check import Checker
from cleanroom_master.conflicts.together import Leaving, hold_back
from cleanroom_master.files import FileStore
from cleanroom_master.places import Places
from cleanroom_master.publish.package import Package, PackageFile, recorded_format
from cleanroom_master.publish.repository import Repository
from cleanroom_master.publish.site import open_repository, open_signer, repository_directory

_BATCH = 100
_AFTER_TROUBLE = 5.0
_PATIENCE = 10.0
_PAUSE = 0.1
_APT = ("deb", "udeb")
_RPM = ("rpm", "source-rpm")


class FileGone(InputError):
    """A file of a release that passed is kept no more."""


class AnotherPublisher(InfrastructureError):
    """Another publisher works on this repository."""


@dataclass
class _Candidate:
    """A release on its way into a channel, and the packages that it brings."""

    publication: Pending
    packages: list[NewPackage] = field(default_factory=list)


class Publisher:
    """One publisher at work on one repository."""

    def __init__(
        self, database: Database, repository: Repository, files: FileStore, checker: Checker | None = None
    ) -> None:
        self._database = database
        self._repository = repository
        self._files = files
        self._checker = checker or Checker(database, [files])

    def recover(self) -> None:
        """After a start: let the record follow what is visible, and clear away what a kill left."""
        unfinished = generations.unswitched(self._database)
        if unfinished is not None:
            if self._repository.current() == unfinished.number:
                generations.switched(self._database, unfinished.number)
            else:
                generations.discard(self._database, unfinished.number)
        self._repository.discard_unfinished()

    def turn(self) -> int:
        """Publish what waits; returns how many releases left. Raises InfrastructureError, to be tried again."""
        waiting = publications.pending(self._database, limit=_BATCH)
        candidates = _compatible(candidate for publication in waiting if (candidate := self._prepare(publication)))
        candidates = self._harmless(candidates)
        if not candidates:
            return 0
        try:
            self._publish(candidates)
        except InputError as error:
            if len(candidates) == 1:
                publications.refuse(self._database, candidates[0].publication.id, str(error))
                return 0
            # One of them spoils the others: alone, each is judged by itself.
            return sum(self._alone(candidate) for candidate in candidates)
        return len(candidates)

    def _alone(self, candidate: _Candidate) -> int:
        try:
            self._publish([candidate])
        except InputError as error:
            publications.refuse(self._database, candidate.publication.id, str(error))
            return 0
        return 1

    def _prepare(self, publication: Pending) -> _Candidate | None:
        """Take a release's packages into the pool; None if it was refused."""
        candidate = _Candidate(publication)
        try:
            files = publications.files(self._database, publication.release_id)
            wanted = [file for file in files if file.kind in (*_APT, *_RPM, "dsc")]
            # Side by side: rpm's own programs take most of the time.
            with ThreadPoolExecutor() as threads:
                candidate.packages += threads.map(lambda file: self._take(publication, file, files), wanted)
            self._check(candidate)
        except InputError as error:
            publications.refuse(self._database, publication.id, str(error))
            return None
        return candidate

    def _harmless(self, candidates: Sequence[_Candidate]) -> list[_Candidate]:
        """Those that go together with what is published and with each other; the others are refused."""
        left = list(candidates)
        while refused := hold_back(self._database, self._checker, [_leaving(one) for one in left]):
            for one in left:
                if one.publication.release_id in refused:
                    publications.refuse(self._database, one.publication.id, refused[one.publication.release_id])
            # Who needed one of these is not to leave without it.
            left = [one for one in left if one.publication.release_id not in refused]
        return left

    def _take(self, publication: Pending, file: ReleasedFile, files: Sequence[ReleasedFile]) -> NewPackage:
        if file.kind == "dsc":
            for other in files:
                if other.kind == "source" and other.target == file.target:
                    self._repository.add_companion(self._kept(other), other.sha256)
        taken = self._repository.add_to_pool(self._kept(file), file.sha256, file=file.file)
        return _new_package(taken, publication, file.target)

    def _kept(self, file: ReleasedFile) -> Path:
        """Where a released file is. Raises FileGone; a store that is away as a whole is the surroundings' fault."""
        if not self._repository.holds(file.sha256) and self._files.lost(file.sha256):
            raise FileGone(
                f"the kept file {file.file} (sha256 {file.sha256}) is gone from the store of artifacts",
                hint="put it back there and approve the release",
            )
        return self._files.path(file.sha256)

    def _check(self, candidate: _Candidate) -> None:
        """What a version is was decided when it was first published, whatever happened to it since."""
        for package in candidate.packages:
            before = generations.ever_published(self._database, package)
            for other in before:
                if other.built_sha256 != package.built_sha256:
                    raise InputError(
                        f"{package.name} {package.version} ({package.architecture}) was published before with other"
                        f" bytes: {other.built_sha256} then, {package.built_sha256} now",
                        hint="a changed package needs a new version",
                    )

    def _publish(self, candidates: Sequence[_Candidate]) -> None:
        """One generation with all candidates: recorded, written, verified, switched, noted."""
        current = self._repository.current()
        contents = [] if current is None else generations.contents(self._database, current)
        there = {_key(package) for package in contents}
        fresh = {_key(package): package for candidate in candidates for package in candidate.packages}
        added = [package for key, package in fresh.items() if key not in there]
        generation = generations.prepare(
            self._database,
            actor="publisher",
            reason=", ".join(f"{one.publication.product} {one.publication.ref}" for one in candidates)[:1000],
            added=added,
            publications=[one.publication.id for one in candidates],
            at_least=(current or 0) + 1,
        )
        try:
            self._repository.build(generation.number, [*map(_package, contents), *map(_package, added)])
            problems = self._repository.verify(generation.number, since=current)
            if problems:
                raise InputError("a client would not accept the repository", problems=problems)
            self._repository.switch(generation.number)
        except CleanroomError:
            if self._repository.current() != generation.number:
                generations.discard(self._database, generation.number)
            self._repository.discard_unfinished()
            raise
        generations.switched(self._database, generation.number)


def _leaving(candidate: _Candidate) -> Leaving:
    targets = sorted({package.target for package in candidate.packages})
    return Leaving(candidate.publication.release_id, candidate.publication.channel, tuple(targets))


def _compatible(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """Those that can be in one generation: of two that bring other bytes under one version, the later one waits.

    On the next turn the earlier one is published, and what the later one brings is judged against it.
    """
    chosen: list[_Candidate] = []
    brought: dict[tuple[str, ...], str] = {}
    for candidate in candidates:
        brings = {_key(package): package.built_sha256 for package in candidate.packages}
        if all(brought.get(key, digest) == digest for key, digest in brings.items()):
            chosen.append(candidate)
            brought |= brings
    return chosen


def _key(package: NewPackage | generations.ChannelPackage) -> tuple[str, ...]:
    return (package.channel, package.target, package.format, package.name, package.version, package.architecture)


def _new_package(taken: PackageFile, publication: Pending, target: str) -> NewPackage:
    return NewPackage(
        publication.channel,
        target,
        taken.format,
        taken.name,
        taken.version,
        taken.architecture,
        taken.file,
        taken.sha256,
        taken.built_sha256,
        taken.size,
        publication.release_id,
    )


def _package(one: NewPackage | generations.ChannelPackage) -> Package:
    return Package(
        one.channel,
        one.target,
        recorded_format(one.format),
        one.file,
        one.sha256,
        one.size,
        one.name,
        one.version,
        one.architecture,
    )


@contextlib.contextmanager
def only_one(settings: Settings, *, patience: float = _PATIENCE) -> Iterator[None]:
    """Be the one publisher of this repository; one that is just ending gets `patience` seconds for it.

    The kernel gives the lock back however a publisher ends. Raises AnotherPublisher.
    """
    place = repository_directory(settings)
    place.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    with (place / "publisher.lock").open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise AnotherPublisher(
                        f"another publisher works on {place}", hint="one state directory has one publisher"
                    ) from None
            time.sleep(_PAUSE)
        yield


def work(settings: Settings) -> None:
    """Publish until SIGTERM: woken by NOTIFY, made right by polling."""
    ended: list[int] = []
    database = open_database(settings, Role.PUBLISHER)
    listener = Listener(database.url, [PUBLICATION])

    def end(number: int, _: object) -> None:
        ended.append(number)
        listener.interrupt()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    with only_one(settings), contextlib.closing(listener), open_signer(settings) as signer:
        files = FileStore(Places(settings).artifacts)
        publisher = Publisher(database, open_repository(settings, signer), files, Checker.of(settings, database))
        recovered = False
        while not ended:
            try:
                if not recovered:
                    publisher.recover()
                    recovered = True
                if publisher.turn() == 0:
                    listener.wait(settings.number("publisher.poll"))
            except InfrastructureError as error:
                sys.stderr.write(f"publication is tried again in {_AFTER_TROUBLE:.0f} s: {error}\n")
                recovered = False
                with contextlib.suppress(InfrastructureError):
                    publications.explain_waiting(database, error.message)
                listener.wait(_AFTER_TROUBLE)


def main() -> None:
    """Run the publisher in this process."""
    try:
        work(load())
    except CleanroomError as error:
        sys.stderr.write(f"cleanroom publisher: {error}\n")
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()

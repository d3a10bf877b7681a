"""The publisher: takes passed releases from the outbox and makes the next generation of them.

It alone holds the signing key, so it also does what people ask of the repository (a rollback, a withdrawal): they
write a request, and are told in its row what came of it. What the surroundings spoil stays in the outbox and is
tried again; what is wrong with a release is refused, with the reason, and spoils no other.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from cleanroom_base import health, log_records
from cleanroom_base.errors import CleanroomError, InfrastructureError, InputError, causes
from cleanroom_base.log_records import Value, about
from cleanroom_base.occasion import Occasion
from cleanroom_base.one_at_a_time import OneAtATime
from cleanroom_base.settings import Settings, load
from cleanroom_db import generations, publications, ref_events, requests
from cleanroom_db.cluster import open_database
from cleanroom_db.connection import Database
from cleanroom_db.generations import ChannelPackage, NewPackage
from cleanroom_db.listen import PUBLICATION, TRIAL, Listener
from cleanroom_db.publications import Pending, ReleasedFile
from cleanroom_db.requests import Request
from cleanroom_db.roles import Role
from cleanroom_db.states import RequestKind, RequestState
from cleanroom_master import attesting, key_keeping, security, upkeep
from cleanroom_master.conflicts.check import Checker
from cleanroom_master.conflicts.together import Leaving, hold_back
from cleanroom_master.files import FileStore
from cleanroom_master.making import Change, make, recover
from cleanroom_master.places import Places
from cleanroom_master.publish.package import PackageFile
from cleanroom_master.publish.repository import Repository
from cleanroom_master.publish.site import open_repository, open_signer, repository_directory
from cleanroom_master.taking_back import rollback, take_out_failed, withdraw
from cleanroom_master.upkeep import Keeping

_BATCH = 100
# A turn may have much to copy, to sign and to verify, or garbage to collect, in seconds.
_LONGEST_TURN = 3600.0
_AFTER_TROUBLE = 5.0
_PATIENCE = 10.0
_PAUSE = 0.1
# How long the first of several releases is waited for at once, and then how long it waits for the others.
_PATIENCE_FOR_ONE = 1.0
_PATIENCE_FOR_ALL = 1.0
_CHANGES_LIMIT = 1 << 20
# A .udeb is for Debian's installer, which has indexes of its own: it stays an artifact.
_APT = ("deb",)
_RPM = ("rpm", "source-rpm")
_KEY_WORK = {
    RequestKind.ROTATE_KEY: key_keeping.rotate,
    RequestKind.RETIRE_KEY: key_keeping.retire,
    RequestKind.EXTEND_KEY: key_keeping.extend,
}


_log = logging.getLogger(__name__)


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
    """One publisher at work on one repository.

    `patience` is how many seconds a release that is ready waits for others that are being prepared; with `canary`, a
    consumer in a clean guest installs what is published.
    """

    def __init__(
        self,
        database: Database,
        repository: Repository,
        files: FileStore,
        *,
        keeping: Keeping | None = None,
        checker: Checker | None = None,
        canary: bool = False,
    ) -> None:
        self._database = database
        self._repository = repository
        self._files = files
        self._keeping = keeping or Keeping()
        self._checker = checker or Checker(database, [files])
        self._threads = ThreadPoolExecutor(thread_name_prefix="prepare")
        self._attesting = OneAtATime()
        self._preparing: dict[int, Future[_Candidate | None]] = {}
        self._canary = canary
        self.patience = _PATIENCE_FOR_ALL

    def close(self) -> None:
        """Let what is being prepared come to its end; it is done again at the next start."""
        self._threads.shutdown(cancel_futures=True)

    def recover(self) -> None:
        """After a start: let the record follow what is visible, and clear away what a kill left."""
        key_keeping.load(self._database, self._repository.signer)
        # What is on its way into the pool would be cleared away under those who bring it.
        self._forget_preparations()
        recover(self._database, self._repository)

    def turn(self) -> int:
        """Do what is asked and publish what waits; returns how many requests and releases were settled.

        Raises InfrastructureError, to be tried again.
        """
        return self._serve() + take_out_failed(self._database, self._repository) + self._publish_waiting()

    @property
    def busy(self) -> bool:
        """Whether releases are still being prepared."""
        return bool(self._preparing)

    def _serve(self) -> int:
        """Do what people asked for, one after the other, as they asked."""
        served = 0
        while (request := requests.first_pending(self._database)) is not None:
            try:
                self._do(request)
            except InputError as error:
                requests.finish(self._database, request.id, RequestState.REFUSED, str(error))
            served += 1
        return served

    def _do(self, request: Request) -> None:
        match request.kind:
            case RequestKind.ROLLBACK:
                rollback(self._database, self._repository, request)
            case RequestKind.WITHDRAW:
                withdraw(self._database, self._repository, request)
            case RequestKind.VERIFY:
                upkeep.verify(self._database, self._repository, request)
            case RequestKind.REPAIR:
                upkeep.repair(self._database, self._repository, self._files, request)
            case RequestKind.COLLECT:
                self._forget_preparations()
                upkeep.collect_on_request(self._database, self._repository, self._keeping, request)
            case RequestKind.ROTATE_KEY | RequestKind.RETIRE_KEY | RequestKind.EXTEND_KEY:
                # Nobody signs while the keys change.
                self._forget_preparations()
                _KEY_WORK[request.kind](self._database, self._repository, request)

    def renew(self) -> None:
        """Retire keys whose time has come, and sign what is published anew, if it is time for that."""
        key_keeping.retire_due(self._database, self._repository.signer)
        upkeep.renew(self._database, self._repository)

    def keep_up(self) -> None:
        """Take out what channels keep no more, and remove what nobody needs."""
        self._forget_preparations()
        upkeep.retire(self._database, self._repository, self._keeping.rules)
        # While a backup is being made, the next time will do.
        with contextlib.suppress(InputError):
            upkeep.collect(self._database, self._repository, self._keeping)

    def _forget_preparations(self) -> None:
        """Nothing is on its way into the pool while it is cleared up; what was is prepared again."""
        wait(self._preparing.values())
        self._preparing.clear()

    def _publish_waiting(self) -> int:
        ready, trouble = self._prepared()
        good = _compatible(one for one in ready if self._is_good(one))
        left = self._publish_ready(self._harmless(good))
        if trouble:
            raise trouble[0]
        return left

    def _publish_ready(self, candidates: Sequence[_Candidate]) -> int:
        if not candidates:
            return 0
        try:
            self._publish(candidates)
        except InputError as error:
            if len(candidates) == 1:
                self._refuse(candidates[0].publication, str(error))
                return 0
            # One of them spoils the others: alone, each is judged by itself.
            return sum(self._publish_ready([candidate]) for candidate in candidates)
        return len(candidates)

    def _prepared(self) -> tuple[list[_Candidate], list[BaseException]]:
        """Releases whose packages are in the pool, in the order in which they came; and what went wrong.

        They are prepared side by side. Those that are ready wait a moment for the others, and for those that come
        meanwhile, so that together they are one generation, and no longer: one whose signing is slow comes with a
        later one.
        """
        self._take_up()
        if not self._preparing:
            return [], []
        wait(self._preparing.values(), timeout=_PATIENCE_FOR_ONE, return_when=FIRST_COMPLETED)
        deadline = time.monotonic() + self.patience
        while not wait(self._preparing.values(), timeout=max(deadline - time.monotonic(), 0)).not_done:
            if not self._take_up() or time.monotonic() > deadline:
                break
        done = [number for number, future in sorted(self._preparing.items()) if future.done()]
        found = [self._preparing.pop(number) for number in done]
        trouble = [error for future in found if (error := future.exception()) is not None]
        ready = [one for future in found if future.exception() is None and (one := future.result()) is not None]
        waiting = publications.still_pending(self._database, [one.publication.id for one in ready])
        return [one for one in ready if one.publication.id in waiting], trouble

    def _take_up(self) -> bool:
        """Begin to prepare the releases that wait and are not prepared yet; says whether there were any."""
        new = [one for one in publications.pending(self._database, limit=_BATCH) if one.id not in self._preparing]
        for one in new:
            _log.info("%s %s is prepared for %s", one.product, one.ref, one.channel, extra=_about(one))
        for publication in new:
            self._preparing[publication.id] = self._threads.submit(self._prepare, publication)
        return bool(new)

    def _prepare(self, publication: Pending) -> _Candidate | None:
        """Take a release's packages into the pool; None if it was refused, or waits no more."""
        candidate = _Candidate(publication)
        try:
            files = publications.files(self._database, publication.release_id)
            wanted = [file for file in files if file.kind in (*_APT, *_RPM, "dsc")]
            # Side by side: rpm's own programs take most of the time, and what is there is signed for meanwhile.
            with ThreadPoolExecutor() as threads:
                taken = [(file.target, threads.submit(self._take, publication, file, files)) for file in wanted]
                signed = [
                    threads.submit(self._attest, publication, [one for target, one in taken if target == whose])
                    for whose in dict.fromkeys(target for target, _ in taken)
                ]
                self._note_security(publication, files)
                candidate.packages += [one.result() for _, one in taken]
                for one in signed:
                    one.result()
        except InputError as error:
            self._refuse(publication, str(error))
            return None
        return candidate

    def _attest(self, publication: Pending, taken: Sequence[Future[NewPackage]]) -> None:
        """Sign how one build's packages came about, as soon as they are in the pool. Two builds may bring the same."""
        packages = [one.result() for one in taken]
        with self._attesting.on({package.sha256 for package in packages}):
            attesting.attest(self._database, self._repository, self._files, publication, packages)

    def _harmless(self, candidates: Sequence[_Candidate]) -> list[_Candidate]:
        """Those that go together with what is published and with each other; the others are refused."""
        left = list(candidates)
        while refused := hold_back(self._database, self._checker, [_leaving(one) for one in left]):
            for one in left:
                if one.publication.release_id in refused:
                    self._refuse(one.publication, refused[one.publication.release_id])
            # Who needed one of these is not to leave without it.
            left = [one for one in left if one.publication.release_id not in refused]
        return left

    def _refuse(self, publication: Pending, why: str) -> None:
        publications.refuse(self._database, publication.id, why)
        told = (publication.product, publication.ref, publication.channel, why)
        _log.warning("%s %s is not published in %s: %s", *told, extra=_about(publication))

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

    def _is_good(self, candidate: _Candidate) -> bool:
        """Whether what it brings may be published, judged against what is published by now; if not, it is refused."""
        try:
            self._check(candidate)
        except InputError as error:
            self._refuse(candidate.publication, str(error))
            return False
        return True

    def _check(self, candidate: _Candidate) -> None:
        """What a version is was decided when it was first published, whatever happened to it since."""
        for row in generations.withdrawn_among(self._database, candidate.packages):
            raise InputError(
                f"{row['name']} {row['version']} was withdrawn from {row['channel']} by {row['actor']}:"
                f" {row['reason']}",
                hint="what was withdrawn does not come back; a new version is needed",
            )
        packages = {_version(package): package for package in candidate.packages}
        for other in generations.ever_published(self._database, candidate.packages):
            package = packages[_version(other)]
            if other.built_sha256 != package.built_sha256:
                raise InputError(
                    f"{package.name} {package.version} ({package.architecture}) was published before with other"
                    f" bytes: {other.built_sha256} then, {package.built_sha256} now",
                    hint="a changed package needs a new version",
                )

    def _note_security(self, publication: Pending, files: Sequence[ReleasedFile]) -> None:
        """Keep with the release by what it says that it mends a hole; a rollback warns of that."""
        changes = [self._changes(file) for file in files if file.kind == "changes"]
        message = publications.message(self._database, publication.release_id)
        found = security.evidence(message, "\n".join(changes))
        if found is not None:
            publications.note_security_fix(self._database, publication.release_id, found)

    def _changes(self, file: ReleasedFile) -> str:
        try:
            with self._files.path(file.sha256).open("rb") as stream:
                return stream.read(_CHANGES_LIMIT).decode(errors="replace")
        except FileNotFoundError:
            return ""

    def _publish(self, candidates: Sequence[_Candidate]) -> None:
        """One generation with all candidates."""
        fresh = {_key(package): package for candidate in candidates for package in candidate.packages}
        there = generations.present(self._database, list(fresh.values()))
        names = ", ".join(f"{one.publication.product} {one.publication.ref}" for one in candidates)
        told = [one.publication for one in candidates]
        actors = {one.publication.requested_by for one in candidates} - {"verdict"}
        number = make(
            self._database,
            self._repository,
            Change(
                actor=actors.pop() if len(actors) == 1 and len(candidates) == 1 else "publisher",
                reason=names,
                added=[package for key, package in fresh.items() if key not in there],
                publications=[one.publication.id for one in candidates],
                tried=self._canary,
            ),
        )
        for one in told:
            where = (one.product, one.ref, one.channel, number)
            _log.info("%s %s is published in %s, generation %d", *where, extra=_about(one, generation=number))


def _about(one: Pending, **more: Value) -> dict[str, dict[str, Value]]:
    """What log records of a publication are about."""
    return about(
        correlation=ref_events.correlation(one.ref_event_id),
        product=one.product,
        ref=one.ref,
        channel=one.channel,
        release=one.release_id,
        **more,
    )


def _told(error: InfrastructureError) -> str:
    """What is wrong and what to do, in one line."""
    return error.message if error.hint is None else f"{error.message} ({error.hint})"


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


def _key(package: NewPackage) -> tuple[str, ...]:
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


def _version(package: NewPackage | ChannelPackage) -> tuple[str, ...]:
    return (package.target, package.format, package.name, package.version, package.architecture)


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
    listener = Listener(database.url, [PUBLICATION, TRIAL])

    def end(number: int, _: object) -> None:
        ended.append(number)
        listener.interrupt()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    pulse = health.Server.begin(settings, "publisher", patience=_LONGEST_TURN)
    pulse.turn("its keys, of which the first is made now, or another publisher's end", within=_PATIENCE)
    with (
        only_one(settings),
        contextlib.closing(listener),
        open_signer(settings) as signer,
        contextlib.ExitStack() as held,
    ):
        store, keeping = FileStore(Places(settings).artifacts), Keeping.of(settings)
        checker = Checker.of(settings, database)
        repository = open_repository(settings, signer)
        canary = settings.text("publisher.canary") == "yes"
        publisher = Publisher(database, repository, store, keeping=keeping, checker=checker, canary=canary)
        held.callback(publisher.close)
        upkeep_due = Occasion(settings.number("repository.collect"), settings.state / "run/housekeeping-publisher")
        recovered = False
        while not ended:
            try:
                if not recovered:
                    publisher.recover()
                    recovered = True
                if publisher.turn() == 0 and not publisher.busy:
                    publisher.renew()
                    if upkeep_due.due():
                        publisher.keep_up()
                    pause = settings.number("publisher.poll")
                    pulse.turn("a release that passed, or a request", within=pause)
                    listener.wait(pause)
                else:
                    pulse.turn("nothing: it publishes", within=0)
            except InfrastructureError as error:
                _log.warning("publication is tried again in %.0f s: %s", _AFTER_TROUBLE, error)
                recovered = False
                with contextlib.suppress(InfrastructureError):
                    publications.explain_waiting(database, _told(error))
                pulse.turn(f"better surroundings: {error.message}", within=_AFTER_TROUBLE)
                listener.wait(_AFTER_TROUBLE)


def main() -> None:
    """Run the publisher in this process."""
    log_records.begin("publisher")
    try:
        work(load())
    except CleanroomError as error:
        _log.critical("%s", "\n".join(causes(error)))
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()

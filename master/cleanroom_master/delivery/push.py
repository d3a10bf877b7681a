"""Pushing: the current generation, brought to a remote in an order in which a client there finds all that is named.

First what never changes under its address, several at a time; then indexes; then what clients read first, one after the
other; at last what is gone is removed. Every file that was taken is a row at once: a push that was ended at any point
goes on with the next file.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cleanroom_base.errors import CleanroomError, InfrastructureError
from cleanroom_db import deliveries
from cleanroom_db.connection import Database
from cleanroom_master.delivery import tree
from cleanroom_master.delivery.remote import Remote
from cleanroom_master.delivery.tree import File
from cleanroom_master.publish.addresses import Stage

_AT_ONCE = 8
# So many files, or bytes, are noted together: what was taken and not noted is brought again, which does no harm.
_BATCH = 32
_BATCH_SIZE = 64 << 20


@dataclass(frozen=True)
class Pushed:
    """What a push did: the generation that the remote has now, files brought and their bytes, files removed."""

    remote: str
    generation: int
    files: int
    size: int
    removed: int


class AnotherPush(InfrastructureError):
    """Another push to a remote is on its way from here."""


def push(
    database: Database, repository: Path, remote: Remote, *, say: Callable[[str], None] = lambda _: None
) -> Pushed:
    """Bring what consumers see now to a remote. `say` is told how far it is.

    Raises AnotherPush, Denied, InfrastructureError; what was brought by then stays, and is not brought again.
    """
    with _only_one(repository):
        number, root = tree.current(repository)
        there = deliveries.begin(database, remote.url, number)
        wanted = tree.files(root)
        missing = [file for file in wanted if there.get(file.place) != file.identity]
        gone = sorted(there.keys() - {file.place for file in wanted})
        try:
            _bring(database, remote, missing, say)
            _remove(database, remote, gone)
        except CleanroomError as error:
            deliveries.explain(database, remote.url, error.message)
            raise
        deliveries.finish(database, remote.url, number)
        return Pushed(remote.url, number, len(missing), sum(file.size for file in missing), len(gone))


def _bring(database: Database, remote: Remote, files: Sequence[File], say: Callable[[str], None]) -> None:
    done = 0
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for batch in _batches(files):
            futures = {threads.submit(_put, remote, file): file for file in batch}
            wait(futures)
            # What was taken is noted, whatever became of the others.
            taken = [file for future, file in futures.items() if future.exception() is None]
            deliveries.brought(database, remote.url, [(file.place, file.identity) for file in taken])
            for future in futures:
                future.result()
            done += len(batch)
            say(f"{done} of {len(files)} files are at {remote.url}")


def _put(remote: Remote, file: File) -> None:
    try:
        remote.put(file.place, file.path)
    except OSError as error:
        raise InfrastructureError(f"{file.place} cannot be read any more: {error.strerror}") from error


def _remove(database: Database, remote: Remote, places: Sequence[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for first in range(0, len(places), _BATCH):
            batch = places[first : first + _BATCH]
            list(threads.map(remote.remove, batch))
            deliveries.removed(database, remote.url, batch)


def _batches(files: Sequence[File]) -> Iterator[list[File]]:
    """Files that are brought side by side: of one stage, not too many, not too large; of what names others, one."""
    batch: list[File] = []
    for file in files:
        full = len(batch) >= _BATCH or sum(one.size for one in batch) >= _BATCH_SIZE
        if batch and (full or file.stage is not batch[0].stage or file.stage is Stage.ENTRIES):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


@contextmanager
def _only_one(repository: Path) -> Iterator[None]:
    """Be the one that pushes from here; the kernel gives the lock back however a push ends. Raises AnotherPush."""
    with (repository / "push.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AnotherPush(
                "another push is on its way from here", hint="'cleanroom repository show' says how far it is"
            ) from None
        yield

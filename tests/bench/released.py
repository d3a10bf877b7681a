"""Releases that passed, and what people ask of the repository, as rows; for measurements of the publisher alone."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from cleanroom_base.errors import TimedOut
from cleanroom_base.settings import Settings
from cleanroom_db import requests
from cleanroom_db.connection import Database
from cleanroom_db.listen import CHANGE, REQUEST, Listener
from cleanroom_db.states import RequestKind
from cleanroom_master.files import FileStore
from cleanroom_master.places import Places
from cleanroom_master.publish.inspect import hash_file

_TIMEOUT = 300.0
# Should a message be lost.
_PAUSE = 5.0
_RELEASE = """
WITH event AS (
    INSERT INTO cleanroom.ref_event (product, ref, commit, state)
    VALUES ('bench', %(ref)s, %(commit)s, 'claimed') RETURNING id
), release AS (
    INSERT INTO cleanroom.release
        (product, ref, commit, kind, state, ref_event_id, recipe, recipe_digest, channel, requested_by, finished_at)
    SELECT 'bench', %(ref)s, %(commit)s, 'tag', 'passed', id, '{}', '', 'testing', 'bench', now() FROM event
    RETURNING id
), build AS (
    INSERT INTO cleanroom.build (release_id, target, phases)
    SELECT id, target, '{build}' FROM release, unnest(%(targets)s::text[]) AS target RETURNING id, target
), attempt AS (
    INSERT INTO cleanroom.attempt (build_id, number, series_start, outcome, finished_at)
    SELECT id, 1, 1, 'passed', now() FROM build RETURNING id, build_id
), artifact AS (
    INSERT INTO cleanroom.artifact (attempt_id, phase, file, sha256, size, kind)
    SELECT attempt.id, 'build', one.file, one.sha256, one.size, one.kind
      FROM attempt JOIN build ON build.id = attempt.build_id
      JOIN unnest(%(files)s::text[], %(sums)s::text[], %(sizes)s::bigint[], %(kinds)s::text[], %(places)s::text[])
           AS one (file, sha256, size, kind, target) ON one.target = build.target
)
INSERT INTO cleanroom.publication (release_id, channel, requested_by) SELECT id, 'testing', 'bench' FROM release
RETURNING release_id
"""


def add_product(database: Database) -> None:
    """The product whose releases they are."""
    with database.transaction() as cursor:
        cursor.execute("INSERT INTO cleanroom.product (name, url) VALUES ('bench', 'https://example.org/b.git')")


def keep(settings: Settings, files: list[Path]) -> None:
    """Have the store of artifacts keep files."""
    store = FileStore(Places(settings).artifacts)
    for file in files:
        copy = file.with_name(f"copy-{file.name}")
        shutil.copyfile(file, copy)
        store.take(copy, hash_file(file)[0])


def record(database: Database, number: int, files: list[Path]) -> int:
    """A release with these files, which are kept, passes; returns its id."""
    sums = [hash_file(file) for file in files]
    kinds = [file.suffix[1:] for file in files]
    with database.transaction() as cursor:
        return int(
            cursor.value(
                _RELEASE,
                ref=f"v{number}",
                commit=f"{number:040x}",
                targets=sorted({f"debian-12/{kind}" for kind in kinds}),
                files=[file.name for file in files],
                sums=[sha256 for sha256, _ in sums],
                sizes=[size for _, size in sums],
                kinds=kinds,
                places=[f"debian-12/{kind}" for kind in kinds],
            )
        )


def ask_for_rollback(database: Database, target: int) -> int:
    """Ask for a rollback; returns the request's id."""
    asked = requests.ask(
        database, RequestKind.ROLLBACK, actor="bench", subject="bench", reason="measured", target=target
    )
    return asked.id


class Watch:
    """Waits for what the publisher does, and is woken by it: who asked again and again would take its processor."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listener = Listener(database.url, [CHANGE, REQUEST])

    def __enter__(self) -> Watch:
        # From now on nothing is missed.
        self._listener.wait(_TIMEOUT)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def release(self, release: int, timeout: float = _TIMEOUT) -> None:
        """Wait until a release is published. Raises TimedOut."""
        self._until("SELECT state = 'published' FROM cleanroom.release WHERE id = %(id)s", release, timeout)

    def request(self, request: int, timeout: float = _TIMEOUT) -> None:
        """Wait until a request is done. Raises TimedOut."""
        self._until("SELECT state = 'done' FROM cleanroom.repository_request WHERE id = %(id)s", request, timeout)

    def _until(self, condition: str, row: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            with self._database.transaction() as cursor:
                if cursor.value(condition, id=row):
                    return
            if time.monotonic() > deadline:
                raise TimedOut("the publisher has not done it")
            self._listener.wait(_PAUSE)

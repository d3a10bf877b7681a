"""A candidate looked at together with 50,000 published packages that hold 5 million paths."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from figures import Row, summary
from installation import fresh, home, say

from cleanroom_base.settings import Settings
from cleanroom_db import conflicts, packages
from cleanroom_db.cluster import open_database
from cleanroom_db.conflicts import Place
from cleanroom_db.connection import Database
from cleanroom_db.packages import FileType, PackageContents, PackagedFile
from cleanroom_db.roles import Role
from cleanroom_images.store import Store
from cleanroom_master.conflicts.base import Bases, ImageBases, no_base
from cleanroom_master.conflicts.check import Checker

PACKAGES = 50_000
FILES = 100
RUNS = 10
_BOUND = 2.0
_IMAGE = "debian-12"
_TARGET = f"{_IMAGE}/deb"
_BATCH = 2_500
_PLACE = Place("testing", _IMAGE)

# Five directories and 95 files each; of the directories three are in every package.
_PACKAGES = """
INSERT INTO cleanroom.package (sha256, format, name, version, architecture, relations)
SELECT encode(sha256(convert_to('package ' || n, 'UTF8')), 'hex'), 'deb', 'bench-' || n, '1.' || n %% 10, 'all',
       format(E'Package: bench-%%s\\nVersion: 1.%%s\\nArchitecture: all\\nDepends: libc6 (>= 2.17), bench-%%s,'
              ' bench-%%s (>= 1.0) | bench-%%s, debconf (>= 0.5) | debconf-2.0\\n', n, n %% 10, n / 2 + 1, n / 3 + 1,
              n / 5 + 1)
  FROM generate_series(%(first)s, %(last)s) AS n
"""
_PUBLISHED = """
INSERT INTO cleanroom.channel_package
    (channel, target, format, name, version, architecture, file, sha256, built_sha256, size, added_in)
SELECT 'testing', %(target)s, 'deb', name, version, architecture, name || '.deb', sha256, sha256, 1, 1
  FROM cleanroom.package
"""
_DIRECTORIES = """
INSERT INTO cleanroom.path (digest, path)
SELECT sha256(convert_to(path, 'UTF8')), path FROM unnest('{/usr,/usr/share,/usr/share/doc}'::text[]) AS path
"""
_PATHS = """
WITH made AS MATERIALIZED (
    SELECT package.id, path, directory FROM cleanroom.package
     CROSS JOIN LATERAL (
        SELECT format('/usr/share/doc/%%s', name) AS path, true AS directory
        UNION ALL SELECT format('/usr/share/%%s', name), true
        UNION ALL SELECT format('/usr/share/%%s/modules/part-%%s/file number %%s.py', name, f %% 7, f), false
                    FROM generate_series(6, %(files)s) AS f) AS path
     WHERE package.id BETWEEN %(first)s AND %(last)s
), known AS (
    INSERT INTO cleanroom.path (digest, path) SELECT sha256(convert_to(path, 'UTF8')), path FROM made
    RETURNING id, path
)
INSERT INTO cleanroom.package_file (package_id, path_id, type, mode, size, digest)
SELECT made.id, known.id, CASE WHEN directory THEN 'directory' ELSE 'file' END::cleanroom.file_type, 420, 1000,
       CASE WHEN directory THEN NULL ELSE sha256(convert_to(made.path, 'UTF8')) END
  FROM made JOIN known USING (path)
"""
# To make indexes afterwards takes a tenth of the time.
_INDEXES = """
SELECT indexdef FROM pg_indexes
 WHERE schemaname = 'cleanroom' AND indexname IN ('package_file_path', 'package_file_directory')
"""
_WITHOUT_INDEXES = """
DROP INDEX cleanroom.package_file_path, cleanroom.package_file_directory;
ALTER TABLE cleanroom.path DROP CONSTRAINT path_digest_key
"""
_SHARED = """
INSERT INTO cleanroom.package_file (package_id, path_id, type, mode, size)
SELECT package.id, path.id, 'directory', 493, 0
  FROM cleanroom.package
  JOIN cleanroom.path ON path.path IN ('/usr', '/usr/share', '/usr/share/doc')
 WHERE package.id BETWEEN %(first)s AND %(last)s
"""
_RELEASE = """
WITH event AS (
    INSERT INTO cleanroom.ref_event (product, ref, commit, state)
    VALUES ('bench', %(ref)s, repeat('a', 40), 'claimed') RETURNING id
), release AS (
    INSERT INTO cleanroom.release
        (product, ref, commit, kind, state, ref_event_id, recipe, recipe_digest, channel, requested_by)
    SELECT 'bench', %(ref)s, repeat('a', 40), 'tag', 'building', id, '{}', '', 'testing', 'bench' FROM event
    RETURNING id
), build AS (
    INSERT INTO cleanroom.build (release_id, target, phases) SELECT id, %(target)s, '{build}' FROM release RETURNING id
), attempt AS (
    INSERT INTO cleanroom.attempt (build_id, number, series_start) SELECT id, 1, 1 FROM build RETURNING id
), artifact AS (
    INSERT INTO cleanroom.artifact (attempt_id, phase, file, sha256, size, kind)
    SELECT id, 'build', %(ref)s || '.deb', %(sha256)s, 1, 'deb' FROM attempt
)
SELECT id FROM release
"""


def measure(runs: int | None = None) -> dict[str, Any]:
    """Fill a database of its own and look at candidates, as the master does before a verdict."""
    # Before the settings are those of an installation without images.
    kept = Store(home())
    with fresh("combination") as settings:
        database = open_database(settings, Role.OWNER)
        say(f"combination: making {PACKAGES} packages with {FILES} paths each")
        begun = time.monotonic()
        _fill(database)
        filled = time.monotonic() - begun
        fine = _candidate(database, "fine", "bench-77", "/usr/share/bench-77/new/file number {}")
        clash = _candidate(database, "clash", "newcomer", "/usr/share/bench-500/modules/part-{0}/file number {0}.py")
        bases: dict[str, Bases] = {"nothing known below": no_base}
        if kept.digest(_IMAGE) is not None:
            bases[f"with the lists of {_IMAGE}"] = ImageBases(Settings(home(), home(), settings.values))
        rows: list[Row] = []
        for below, base in bases.items():
            checker = Checker(database, [], base)
            for what, release in (("a new version that breaks nothing", fine), ("one with 3 paths of another", clash)):
                times = _timed(runs, lambda release=release, checker=checker: checker.check(_PLACE, [release]))
                [check] = checker.check(_PLACE, [release])[release]
                told = {"packages": check.packages, "conflicts": len(check.conflicts), "bound": _BOUND}
                rows.append({"what": what, "below": below, **summary(times), **told})
        parts = _parts(database, runs, fine)
        sizes = _sizes(database)
        database.close()
    return {"combination": rows, "parts": parts, "sizes": sizes, "filled_seconds": round(filled, 1)}


def tables(measured: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """What of it people want to see."""
    title = f"a candidate together with {PACKAGES} packages of {PACKAGES * FILES} paths; in seconds"
    return [
        (title, measured["combination"]),
        ("of that; in seconds", measured["parts"]),
        ("the tables with their indexes; in MiB", measured["sizes"]),
    ]


def _parts(database: Database, runs: int | None, release: int) -> list[Row]:
    found = conflicts.candidates(database, _PLACE, [release])
    ids = [one.id for candidate in found for one in candidate.of("deb") if one.id is not None]
    work: dict[str, Callable[[], object]] = {
        "the files, in the record": lambda: conflicts.shared(database, _PLACE, ids, ids),
        "what tells one state of the channel from another": lambda: conflicts.basis(database, _PLACE, found),
        "what all packages need, from the record": lambda: conflicts.published(database, _PLACE, "deb", without=ids),
    }
    return [{"what": what, **summary(_timed(runs, one))} for what, one in work.items()]


def _sizes(database: Database) -> list[Row]:
    with database.transaction() as cursor:
        return [
            {
                "table": name,
                "rows": cursor.value(f"SELECT count(*) FROM cleanroom.{name}"),
                "size": round(cursor.value(f"SELECT pg_total_relation_size('cleanroom.{name}')") / (1 << 20)),
            }
            for name in ("package", "path", "package_file")
        ]


def _timed(runs: int | None, work: Callable[[], object]) -> list[float]:
    taken = []
    for _ in range(runs or RUNS):
        begun = time.monotonic()
        work()
        taken.append(time.monotonic() - begun)
    return taken


def _candidate(database: Database, ref: str, name: str, pattern: str) -> int:
    """A release with one package of 200 paths of its own and some by a pattern."""
    own = [f"/usr/lib/{name}/{number}" for number in range(200)]
    paths = ["/usr", "/usr/share", "/usr/share/doc", *own, *(pattern.format(number) for number in range(6, 9))]
    kinds = {path: FileType.DIRECTORY if path.count("/") < 4 else FileType.FILE for path in paths}
    files = [PackagedFile(path, kind, 0o644, 1, "00" * 32) for path, kind in kinds.items()]
    relations = (
        f"Package: {name}\nVersion: 2.0\nArchitecture: all\nDepends: libc6 (>= 2.17), bench-9, bench-500 (>= 1.0)\n"
    )
    digest = packages.path_digest(ref)
    packages.record(database, digest, PackageContents("deb", name, "2.0", "all", relations, files))
    with database.transaction() as cursor:
        return int(cursor.value(_RELEASE, ref=ref, target=_TARGET, sha256=digest))


def _fill(database: Database) -> None:
    with database.transaction() as cursor:
        cursor.execute("INSERT INTO cleanroom.product (name, url) VALUES ('bench', 'https://example.org/bench.git')")
        cursor.execute(
            "INSERT INTO cleanroom.generation (number, actor, reason, switched_at) VALUES (1, '', '', now())"
        )
        cursor.execute(_PACKAGES, first=1, last=PACKAGES)
        cursor.execute(_PUBLISHED, target=_TARGET)
        cursor.execute(_DIRECTORIES)
    with database.transaction() as cursor:
        kept = cursor.rows(_INDEXES)
        cursor.execute(_WITHOUT_INDEXES)
    for first in range(1, PACKAGES + 1, _BATCH):
        with database.transaction() as cursor:
            # What is made here is right by itself, and ten million look-ups of foreign keys take minutes.
            cursor.execute("SET LOCAL session_replication_role = replica; SET LOCAL synchronous_commit = off")
            cursor.execute(_PATHS, first=first, last=first + _BATCH - 1, files=FILES)
            cursor.execute(_SHARED, first=first, last=first + _BATCH - 1)
    with database.transaction() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0; SET LOCAL maintenance_work_mem = '512MB'")
        cursor.execute("ALTER TABLE cleanroom.path ADD UNIQUE (digest)")
        for index in kept:
            cursor.execute(index["indexdef"])
        cursor.execute("ANALYZE")

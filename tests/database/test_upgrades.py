"""Every version of the schema that landed is brought forward with what is in it; and what is old goes on meanwhile."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schema_dumps
from database_server import Server
from schema_dumps import DUMPS
from shop import Shop
from tiny_packages import make_deb

from cleanroom_base.settings import load
from cleanroom_db import migrate, releases, roles, view, workers
from cleanroom_db.connection import Database
from cleanroom_db.migrate import Migration
from cleanroom_db.roles import Role
from cleanroom_master import program, supervisor, upgrading
from cleanroom_master.backup import archive
from cleanroom_master.cli import run
from cleanroom_recipes import protocol

RELEASE = "repository/current/apt/dists/testing/InRelease"
VERSIONS = [int(file.stem) for file in sorted(DUMPS.glob("[0-9]*.sql"))]
# Of these the last from which there is still a step to the newest: else an upgrade would have nothing to do.
BEHIND = max(number for number in VERSIONS if number < migrate.migrations()[-1].number)


@pytest.fixture
def empty(server: Server, name: str) -> Iterator[Database]:
    """A database with nothing in it."""
    server.execute(f"CREATE DATABASE {name}_empty TEMPLATE template1")
    database = Database(server.url(Role.OWNER, f"{name}_empty"))
    yield database
    database.close()
    server.execute(f"DROP DATABASE {name}_empty WITH (FORCE)")


def contents(owner: Database) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables, in the order in which they are sorted as text."""
    with owner.transaction() as cursor:
        names = cursor.rows(
            "SELECT table_name AS name FROM information_schema.tables"
            " WHERE table_schema = 'cleanroom' AND table_type = 'BASE TABLE' ORDER BY 1"
        )
        return {
            row["name"]: [
                one["line"] for one in cursor.rows(f'SELECT to_jsonb(t) AS line FROM cleanroom."{row["name"]}" t')
            ]
            for row in names
        }


@pytest.mark.parametrize("number", VERSIONS)
def test_what_was_recorded_at_a_version_is_there_at_the_newest(empty: Database, number: int) -> None:
    schema_dumps.load(empty, number)
    before = contents(empty)
    assert max(one["number"] for one in before["migration"]) == number
    applied = migrate.apply(empty)
    assert [int(name[:4]) for name in applied] == [one.number for one in migrate.migrations() if one.number > number]
    after = contents(empty)
    for table, rows in before.items():
        for row in rows:
            alike = [one for one in after[table] if row.items() <= one.items()]
            assert alike, f"{table}: {row}"
    # It is not only there: this version reads it.
    shown = view.release_view(empty, "hello", "v1")
    assert (shown["state"], shown["published"][0]["channel"]) == ("published", "testing")
    assert shown["builds"][0]["phases"][0]["tests"]["passed"] == 1
    assert [one.ref for one in releases.list_latest(empty)] == ["v2", "v1"]
    assert migrate.apply(empty) == []


def test_there_is_a_dump_of_every_version_that_landed_and_every_table_is_in_it(empty: Database) -> None:
    assert list(range(1, len(VERSIONS) + 1)) == VERSIONS
    last = VERSIONS[-1]
    schema_dumps.load(empty, last)
    assert {table for table, rows in contents(empty).items() if not rows} == set()
    landed = [one.number for one in migrate.migrations() if one.number <= last]
    assert landed == VERSIONS


# -- additive only ----------------------------------------------------------------------------------------------

_SECOND = re.compile(r"^-- second step of \d{4}: \S", re.MULTILINE)


def shape(owner: Database) -> dict[str, str]:
    """What programs use of a schema: tables and views with their columns, and words."""
    with owner.transaction() as cursor:
        columns = cursor.rows(
            "SELECT table_name || '.' || column_name AS name, udt_name || CASE WHEN is_nullable = 'NO'"
            " AND column_default IS NULL AND is_identity = 'NO' THEN ', must be given' ELSE '' END AS kind"
            " FROM information_schema.columns WHERE table_schema = 'cleanroom'"
        )
        words = cursor.rows(
            "SELECT typname || ' ' || enumlabel AS name, 'word' AS kind FROM pg_enum"
            " JOIN pg_type ON pg_type.oid = enumtypid"
        )
    return {row["name"]: row["kind"] for row in [*columns, *words]}


def broken(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What a program of the version before would miss, or would have to give and does not know."""
    tables = {name.partition(".")[0] for name in before}
    missed = [f"{name} is gone" for name in before if name not in after]
    changed = [
        f"{name} was {kind}, is {after[name]}"
        for name, kind in before.items()
        if name in after and after[name] not in (kind, kind.removesuffix(", must be given"))
    ]
    wanted = [
        f"{name} must be given"
        for name, kind in after.items()
        if kind.endswith("must be given") and name not in before and name.partition(".")[0] in tables
    ]
    return sorted([*missed, *changed, *wanted])


def step(owner: Database, one: Migration) -> list[str]:
    """Apply a migration, and say what it breaks for the version before."""
    before = shape(owner) if one.number > 1 else {}
    with owner.transaction() as cursor:
        cursor.execute(one.statements)
    return broken(before, shape(owner))


def test_no_migration_takes_away_what_the_version_before_uses(empty: Database) -> None:
    """The old web status and the old workers go on while the schema is new already."""
    with empty.transaction() as cursor:
        roles.create(cursor)
    found = {
        one.number: problems
        for one in migrate.migrations()
        if (problems := step(empty, one)) and not _SECOND.search(one.statements)
    }
    assert found == {}


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DROP TABLE cleanroom.sign_in_failure", "sign_in_failure.account is gone"),
        ("ALTER TABLE cleanroom.product DROP watch_error", "product.watch_error is gone"),
        ("ALTER TABLE cleanroom.product RENAME url TO address", "product.url is gone"),
        ("ALTER TABLE cleanroom.product ALTER watched_at TYPE text", "product.watched_at was timestamptz, is text"),
        ("ALTER TABLE cleanroom.product ADD owner text NOT NULL", "product.owner must be given"),
        (
            "ALTER TABLE cleanroom.product ALTER existing DROP DEFAULT",
            "product.existing was bool, is bool, must be given",
        ),
        ("ALTER TYPE cleanroom.outcome RENAME VALUE 'flaky' TO 'unsure'", "outcome flaky is gone"),
        ("ALTER TABLE cleanroom.product ADD owner text", ""),
    ],
)
def test_what_takes_something_away_is_found(owner: Database, statement: str, problem: str) -> None:
    found = step(owner, Migration(9999, "later", statement))
    assert problem in found if problem else found == []


# -- the command ------------------------------------------------------------------------------------------------


@pytest.fixture
def old(empty: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Database:
    """A site whose record is behind the newest version."""
    schema_dumps.load(empty, BEHIND)
    monkeypatch.delenv("CLEANROOM_TEST_STATE", raising=False)
    monkeypatch.setenv("CLEANROOM_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("CLEANROOM_SITE", str(tmp_path))
    monkeypatch.setenv("CLEANROOM_DATABASE_URL", empty.url)
    (tmp_path / "state/run").mkdir(parents=True)
    # Those of that day are too old by now.
    with empty.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.worker SET protocol = %(last)s", last=protocol.VERSION - 1)
    return empty


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    """The exit status of a command, and what it said."""
    status = run([*words, "--format", "json"])
    return status, json.loads(capsys.readouterr().out or "null")


def test_a_check_says_what_would_be_done_and_does_nothing(old: Database, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = said(capsys, "upgrade", "--check")
    assert list(found) == [*("migrations", "workers", "restart", "backup", "free", "problems"), "applied"]
    newer = [f"{one.number:04}_{one.name}" for one in migrate.migrations() if one.number > BEHIND]
    assert newer
    assert (status, found["migrations"], found["problems"], found["restart"]) == (0, newer, [], [])
    assert found["backup"] > 1 << 20
    assert [one.name for one in migrate.pending(old)] == [name[5:] for name in newer]


def test_an_upgrade_writes_a_backup_first_and_then_migrates(
    old: Database, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, found = said(capsys, "upgrade", "--backup", str(tmp_path / "before"))
    assert (status, found["applied"]) == (0, found["migrations"])
    assert migrate.pending(old) == []
    about = archive.verify(tmp_path / "before", lambda *_: None)
    assert (about["schema"], about["generation"]) == (BEHIND, 1)
    assert said(capsys, "upgrade")[1]["applied"] == []


def test_a_worker_that_is_too_old_is_in_the_way(
    old: Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(capsys, "upgrade")[0] == 0
    workers.attached(old, "host-1", protocol.VERSION - 1, "")
    assert said(capsys, "upgrade", "--check")[0] == 0
    workers.attached(old, "host-2", protocol.VERSION - 2, "")
    status, found = said(capsys, "upgrade", "--check")
    assert status == 3
    [problem] = found["problems"]
    assert problem.startswith(f"worker host-2: the worker speaks version {protocol.VERSION - 2}")
    assert "now bring its host up to date" in problem
    assert run(["upgrade"]) == 3
    assert run(["upgrade", "--force"]) == 0


def test_services_that_run_other_code_are_named(tmp_path: Path) -> None:
    site = load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path)})
    (tmp_path / "run").mkdir()
    with supervisor._only_one(site):
        (tmp_path / "run/services.json").write_text('[{"name": "web"}, {"name": "worker"}]')
        assert upgrading.outdated_services(site) is None
        now = program.digests()
        file = tmp_path / "run" / supervisor.PROGRAM
        for changed, outdated in ((None, []), ("cleanroom_db", ["web"]), ("cleanroom_base", ["web", "worker"])):
            file.write_text(json.dumps({**now, **({changed: "x"} if changed else {})}))
            assert upgrading.outdated_services(site) == outdated
    assert upgrading.outdated_services(site) == []


def test_the_repository_is_read_through_an_upgrade(
    old: Database, capsys: pytest.CaptureFixture[str], shop: Shop, tmp_path: Path
) -> None:
    """It is plain files: whoever reads them notices nothing."""
    shop.passed("v1", make_deb(tmp_path))
    assert shop.settle() == 1
    shop.home.joinpath("repository").rename(tmp_path / "state/repository")
    package = next((tmp_path / "state/repository/current/apt/pool").rglob("*.deb")).relative_to(tmp_path / "state")
    read: list[bytes] = []
    ended = threading.Event()

    def consume() -> None:
        while not ended.is_set():
            found = [(tmp_path / "state" / place).read_bytes() for place in (RELEASE, package)]
            read.append(b"".join(found))

    reader = threading.Thread(target=consume)
    reader.start()
    try:
        assert said(capsys, "upgrade")[0] == 0
    finally:
        before = len(read)
        ended.set()
        reader.join(60)
    assert before > 1
    assert len(set(read)) == 1

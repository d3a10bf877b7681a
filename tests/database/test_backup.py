"""A backup brings back every row of every table and every published byte; and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from database_server import Server, add_product
from shop import Shop
from test_housekeeping import built
from tiny_packages import make_deb, make_rpm

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.settings import Settings, load
from cleanroom_db import cluster, generations
from cleanroom_db.connection import Database
from cleanroom_db.roles import Role
from cleanroom_master import housekeeping, stores, supervisor, upkeep
from cleanroom_master.backup import archive, making, restoring
from cleanroom_master.cli import run
from cleanroom_master.making import recover
from cleanroom_master.publish.repository import Repository


def quiet(*_: object) -> None:
    """Nobody watches."""


@pytest.fixture
def site(server: Server, name: str, tmp_path: Path) -> Settings:
    """The shop as a site of its own."""
    settings = load({"CLEANROOM_STATE": str(tmp_path / "site"), "CLEANROOM_SITE": str(tmp_path)})
    return replace(settings, values={**settings.values, "database.url": server.url(Role.OWNER, name)})


@pytest.fixture
def elsewhere(server: Server, name: str, tmp_path: Path) -> Iterator[Settings]:
    """An empty machine: another state, another database."""
    server.execute(f"CREATE DATABASE {name}_elsewhere TEMPLATE template1")
    settings = load({"CLEANROOM_STATE": str(tmp_path / "elsewhere"), "CLEANROOM_SITE": str(tmp_path)})
    url = server.url(Role.OWNER, f"{name}_elsewhere")
    yield replace(settings, values={**settings.values, "database.url": url})
    server.execute(f"DROP DATABASE {name}_elsewhere WITH (FORCE)")


@pytest.fixture
def published(shop: Shop, site: Settings, tmp_path: Path) -> Shop:
    """Two generations of apt and yum, a failed release with its log and file."""
    shop.passed("v1", make_deb(tmp_path))
    assert shop.settle() == 1
    shop.passed("v2", make_rpm(tmp_path, "round"), kind="rpm")
    assert shop.settle() == 1
    built(shop.owner, site, "v3", "what went wrong")
    return shop


def rows(database: Database) -> dict[str, list[Any]]:
    """Every row of every table, and where its numbers go on."""
    with database.transaction() as cursor:
        names = cursor.rows(
            "SELECT format('%I.%I', table_schema, table_name) AS name FROM information_schema.tables"
            " WHERE table_schema IN ('cleanroom', 'buildbot') AND table_type = 'BASE TABLE' ORDER BY 1"
        )
        found = {
            row["name"]: [
                one["line"] for one in cursor.rows(f"SELECT t::text AS line FROM {row['name']} AS t ORDER BY 1")
            ]
            for row in names
        }
        found["numbers"] = [
            tuple(row.values())
            for row in cursor.rows(
                "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'cleanroom' ORDER BY 1"
            )
        ]
    return found


def files(state: Path, *names: str) -> dict[str, tuple[str, int, int]]:
    """Every file below some directories: content (of a link: where it leads), permissions, time in seconds."""
    found = {}
    for name in names:
        for inside, directories, leaves in os.walk(state / name):
            for leaf in [*leaves, *directories]:
                path = Path(inside, leaf)
                status = path.lstat()
                if path.is_symlink():
                    found[str(path.relative_to(state))] = (f"-> {path.readlink()}", 0, 0)
                elif path.is_file() and not leaf.startswith("."):
                    digest = hashlib.sha256(path.read_bytes()).hexdigest()
                    found[str(path.relative_to(state))] = (digest, status.st_mode, int(status.st_mtime))
    return found


def opened(settings: Settings) -> Database:
    return cluster.open_database(settings, Role.OWNER)


def test_every_row_and_every_byte_comes_back(
    published: Shop, site: Settings, elsewhere: Settings, tmp_path: Path
) -> None:
    file, passphrase = tmp_path / "all.cleanroom", tmp_path / "passphrase"
    passphrase.write_text("correct horse\n")
    shutil.copytree(published._signer.home, site.state / "publisher/gnupg", ignore=lambda _, all_: [
        one for one in all_ if one.startswith("S.")
    ])  # fmt: skip
    made = making.make(site, published.owner, file, passphrase=passphrase, progress=quiet)
    assert (made.generation, made.missing, file.stat().st_mode & 0o777) == (2, 0, 0o600)
    assert archive.verify(file, quiet)["generation"] == 2
    # Everything that is copied is named with its checksum, and keys leave encrypted only.
    with tarfile.open(file) as tar:
        names = tar.getnames()
        sealed = tar.extractfile(archive.KEYS)
        assert sealed is not None
        assert b"PRIVATE" not in sealed.read()
    assert names[-2:] == ["MANIFEST", "MANIFEST.sha256"]
    done = restoring.restore(elsewhere, file, passphrase=passphrase, force=False, progress=quiet)
    assert done.migrated == []
    other = opened(elsewhere)
    assert rows(other) == rows(published.owner)
    other.close()
    kept = ("repository", "logs", "artifacts")
    there = files(elsewhere.state, *kept)
    assert there == files(site.state, *kept)
    assert len([name for name in there if name.startswith("artifacts/")]) == 7
    # What was one file with several names is that again.
    [pool] = (elsewhere.state / "repository/pool").glob(f"*/{generations.contents(published.owner, 2)[0].sha256}")
    assert pool.stat().st_nlink == 2
    keys = files(elsewhere.state, "publisher/gnupg")
    assert any("private-keys-v1.d" in name for name in keys)
    there = files(site.state, "publisher/gnupg")
    assert {name: digest for name, (digest, _, _) in keys.items()} == {name: there[name][0] for name in keys}
    repository = repository_of(elsewhere, published)
    assert (repository.current(), repository.verify(2)) == (2, [])
    assert not supervisor.restore_mark(elsewhere).exists()


def repository_of(settings: Settings, shop: Shop) -> Repository:
    """The repository of a restored state, with the keys of the shop."""
    return Repository(settings.state / "repository", shop._signer, origin="Test", url="http://repository.example")


def test_the_record_is_one_moment_and_the_files_are_at_least_that(
    published: Shop, site: Settings, elsewhere: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a backup is made, a release is published, and another generation is half made."""
    before = rows(published.owner)
    del before["numbers"]

    def walk(*arguments: Any) -> Iterator[Path]:
        # After the snapshot, and before the files are copied.
        published.passed("v4", make_deb(tmp_path, version="4.0"))
        published.settle()
        (site.state / "repository/generations/4.partial").mkdir()
        yield from named(*arguments)

    named = making._named
    monkeypatch.setattr(making, "_named", walk)
    file = tmp_path / "busy.cleanroom"
    another = opened(site)
    assert making.make(site, another, file, passphrase=None, progress=quiet).generation == 2
    another.close()
    assert published.repository().current() == 3
    restoring.restore(elsewhere, file, passphrase=None, force=False, progress=quiet)
    other = opened(elsewhere)
    after = rows(other)
    del after["numbers"]
    assert after == before
    repository = repository_of(elsewhere, published)
    assert (repository.current(), repository.numbers()) == (2, [2, 1])
    recover(other, repository)
    assert repository.verify(2) == []
    other.close()


def test_nothing_is_removed_while_a_backup_is_made(shop: Shop, site: Settings, master: Database) -> None:
    with stores.no_removal(site.state):
        [logs, artifacts, _] = housekeeping.master(site, master, remove=True)
        assert logs.why == artifacts.why == "a backup is being made: nothing is removed meanwhile"
        with pytest.raises(InputError, match="a backup is being made"):
            upkeep.collect(shop.database, shop.repository(), upkeep.Keeping())
        shop.publisher().keep_up()


@pytest.fixture
def small(owner: Database, site: Settings) -> Database:
    """A record with a failed release, its log and file, and something like a repository."""
    add_product(owner)
    built(owner, site, "v1", "what went wrong")
    pool, address = (site.state / "repository" / place for place in ("pool/ab/abcdef", "files/apt/pool/x.deb"))
    for place in (pool, address):
        place.parent.mkdir(parents=True)
    pool.write_bytes(b"package")
    os.link(pool, address)
    return owner


@pytest.fixture
def file(small: Database, site: Settings, tmp_path: Path) -> Path:
    """A backup."""
    place = tmp_path / "good.cleanroom"
    making.make(site, small, place, passphrase=None, progress=quiet)
    return place


def test_a_state_that_is_not_empty_is_refused_unless_told(file: Path, site: Settings, elsewhere: Settings) -> None:
    with pytest.raises(InputError, match="is not empty: it has logs, artifacts, repository, a record in its database"):
        restoring.restore(site, file, passphrase=None, force=False, progress=quiet)
    (elsewhere.state / "logs/ab").mkdir(parents=True)
    restoring.restore(elsewhere, file, passphrase=None, force=False, progress=quiet)
    (elsewhere.state / "artifacts/stranger").write_text("x")
    restoring.restore(elsewhere, file, passphrase=None, force=True, progress=quiet)
    assert not (elsewhere.state / "artifacts/stranger").exists()


@pytest.mark.parametrize("point", ["files", "record", "rows"])
def test_a_restore_that_was_killed_is_begun_again(
    file: Path, small: Database, site: Settings, elsewhere: Settings, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def die(*arguments: Any, **how: Any) -> Any:
        nonlocal calls
        calls += 1
        if point != "files" or calls > 2:
            raise KeyboardInterrupt
        return place(*arguments, **how)

    place = restoring._place
    target = {
        "files": (restoring, "_place"),
        "record": (cluster, "restore"),
        "rows": (restoring.migrate, "migrate"),
    }[point]
    with monkeypatch.context() as patched:
        patched.setattr(*target, die)
        with pytest.raises(KeyboardInterrupt):
            restoring.restore(elsewhere, file, passphrase=None, force=False, progress=quiet)
    with pytest.raises(InputError, match="was not put back to its end"):
        supervisor.prepare(elsewhere)
    restoring.restore(elsewhere, file, passphrase=None, force=False, progress=quiet)
    other = opened(elsewhere)
    assert rows(other) == rows(small)
    other.close()
    assert files(elsewhere.state, "repository", "logs") == files(site.state, "repository", "logs")


def test_a_backup_that_fails_leaves_nothing(
    small: Database, site: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin/pg_dump"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    place = tmp_path / "backups"
    place.mkdir()
    with pytest.raises(InfrastructureError, match="no room"):
        making.make(site, small, place / "one", passphrase=None, progress=quiet)
    assert list(place.iterdir()) == []
    (place / "one").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        making.make(site, small, place / "one", passphrase=None, progress=quiet)


def test_keys_need_their_passphrase(small: Database, site: Settings, elsewhere: Settings, tmp_path: Path) -> None:
    home, passphrase = site.state / "publisher/gnupg", tmp_path / "passphrase"
    home.mkdir(parents=True)
    (home / "pubring.kbx").write_bytes(b"keys")
    passphrase.write_text("\n")
    with pytest.raises(InputError, match="no passphrase in its first line"):
        making.make(site, small, tmp_path / "one", passphrase=passphrase, progress=quiet)
    passphrase.write_text("right")
    making.make(site, small, tmp_path / "one", passphrase=passphrase, progress=quiet)
    passphrase.write_text("wrong")
    with pytest.raises(InputError, match="cannot be decrypted with this passphrase"):
        restoring.restore(elsewhere, tmp_path / "one", passphrase=passphrase, force=False, progress=quiet)
    passphrase.write_text("right")
    restoring.restore(elsewhere, tmp_path / "one", passphrase=passphrase, force=False, progress=quiet)
    assert (elsewhere.state / "publisher/gnupg/pubring.kbx").read_bytes() == b"keys"


def test_the_commands(
    small: Database,
    site: Settings,
    elsewhere: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def said(settings: Settings, *words: str) -> Any:
        monkeypatch.delenv("CLEANROOM_TEST_STATE", raising=False)
        for name, value in (("STATE", settings.state), ("SITE", tmp_path), ("DATABASE_URL", opened(settings).url)):
            monkeypatch.setenv(f"CLEANROOM_{name}", str(value))
        status = run([*words, "--format", "json"])
        printed = capsys.readouterr()
        return status, json.loads(printed.out) if printed.out else printed.err

    file = str(tmp_path / "one")
    status, made = said(site, "backup", file)
    assert (status, list(made)) == (0, ["file", "files", "size", "generation", "missing", "keys", "sha256"])
    status, found = said(site, "backup", "verify", file)
    assert (status, list(found)) == (0, ["file", "complete", "about"])
    about = ["format", "made_at", "made_by", "host", "schema", "server", "generation", "keys"]
    assert list(found["about"]) == about
    status, back = said(elsewhere, "restore", file)
    assert (status, list(back), list(back["about"])) == (0, ["about", "files", "keys", "migrated", "next"], about)
    for words, problem in (
        (["backup"], None),
        (["backup", "a", "b"], "one file is needed"),
        (["backup", "--with-keys", "a"], "go together"),
        (["backup", file], "is there already"),
        (["backup", "verify", str(tmp_path / "none")], "there is no file"),
        (["restore", file], "is not empty"),
    ):
        if problem is None:
            with pytest.raises(SystemExit, match="2"):
                run(words)
        else:
            status, told = said(elsewhere, *words)
            assert (status, problem in told) == (2, True), told

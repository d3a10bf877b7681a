"""Connections: a server that is away, one that refuses, transactions within transactions, threads."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from database_server import Server, add_product

from cleanroom_base import settings as site
from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.settings import Settings
from cleanroom_db import cluster, connection, listen, migrate, products
from cleanroom_db.connection import (
    ConstraintViolated,
    Database,
    DatabaseAway,
    DatabaseBroken,
    DatabaseBusy,
    DatabaseRefused,
    without_password,
)
from cleanroom_db.listen import Listener
from cleanroom_db.roles import Role
from cleanroom_db.sql import Prepared


@pytest.fixture
def own() -> Iterator[Settings]:
    """The settings of a cluster that a test may stop and kill."""
    place = Path(tempfile.mkdtemp(prefix="cr-", dir="/tmp"))
    place.chmod(0o755)
    settings = site.load({"CLEANROOM_STATE": str(place), "CLEANROOM_SITE": str(place)})
    yield settings
    cluster.stop(settings)
    shutil.rmtree(place)
    shutil.rmtree(settings.runtime, ignore_errors=True)


def test_a_wrong_password_is_said_and_not_waited_for(server: Server, name: str) -> None:
    password = cluster.secret(server.settings, Role.WEB)
    url = server.url(Role.WEB, name).replace(password, "wrong")
    refused = pytest.raises(DatabaseRefused, match="password authentication failed")
    with refused as raised, Database(url, wait=300).transaction():
        pass
    assert "check the user, the password" in str(raised.value)
    assert "wrong" not in str(raised.value)
    assert ":***@" in str(raised.value)


@pytest.mark.parametrize("database", ["postgresql://%2Fnowhere/x", "postgresql://127.0.0.1:1/x"])
def test_a_server_that_is_away_is_waited_for_and_then_said(database: str) -> None:
    away = pytest.raises(DatabaseAway, match=r"did not answer within 0\.3 s")
    with away, Database(database, wait=0.3).transaction():
        pass


def test_passwords_are_not_shown() -> None:
    assert without_password("postgresql://me:se:cret@host/x?y=1") == "postgresql://me:***@host/x?y=1"
    assert without_password("postgresql://me@host/x?password=secret&y=1") == "postgresql://me@host/x?password=***&y=1"


def test_a_transaction_within_another_is_undone_alone(owner: Database) -> None:
    with owner.transaction():
        add_product(owner, "one")
        with pytest.raises(ConstraintViolated):
            add_product(owner, "not a name")
        add_product(owner, "two")
    assert [product.name for product in products.list_watched(owner)] == ["one", "two"]
    with pytest.raises(KeyboardInterrupt), owner.transaction():
        add_product(owner, "three")
        raise KeyboardInterrupt
    assert [product.name for product in products.list_watched(owner)] == ["one", "two"]


def test_each_thread_has_its_own_transaction(owner: Database) -> None:
    seen: list[int] = []
    with owner.transaction():
        add_product(owner, "one")
        thread = threading.Thread(target=lambda: seen.append(len(products.list_watched(owner))))
        thread.start()
        thread.join(30)
    assert seen == [0]


def test_more_threads_than_connections_take_turns(server: Server, name: str) -> None:
    database = Database(server.url(Role.OWNER, name), connections=2)
    threads = [threading.Thread(target=add_product, args=[database, f"p{number}"]) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(products.list_watched(database)) == 20
    database.close()


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("SELECT nonsense", DatabaseBroken),
        ("SET LOCAL statement_timeout = '10ms'; SELECT pg_sleep(5)", DatabaseBusy),
        ("SELECT 'x'::int", ConstraintViolated),
        ("SELECT pg_terminate_backend(pg_backend_pid())", DatabaseAway),
    ],
)
def test_the_driver_s_errors_become_ours(owner: Database, statement: str, error: type[Exception]) -> None:
    with pytest.raises(error), owner.transaction() as cursor:
        cursor.execute(statement)
    with owner.transaction() as cursor:
        assert cursor.value("SELECT 1") == 1


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
def test_text_that_the_database_does_not_take_is_an_input_error(owner: Database, text: str) -> None:
    with pytest.raises(InputError, match="does not take this text"), owner.transaction() as cursor:
        cursor.execute("SELECT %(text)s", text=text)
    with pytest.raises(InputError, match="there is no product"):
        products.get(owner, text)


def test_a_database_that_restarts_costs_nothing(own: Settings) -> None:
    cluster.ensure(own)
    migrate.migrate(own)
    database = cluster.open_database(own, Role.OWNER)
    add_product(database)
    listener = Listener(database.url, [listen.REF_EVENT])
    listener.wait(10)
    cluster.stop(own)
    assert not cluster.status(own).running
    assert listener.wait(0.1) == set()
    back = threading.Timer(1.0, cluster.ensure, [own])
    back.start()
    assert products.get(database, "hello").name == "hello"  # waits for it
    assert listener.wait(30) == {listen.REF_EVENT}
    back.join()
    with database.transaction() as cursor:
        cursor.execute("INSERT INTO cleanroom.ref_event (product, ref) VALUES ('hello', 'v1')")
    assert listener.wait(30) == {listen.REF_EVENT}
    listener.close()
    database.close()


def test_a_killed_server_starts_again_with_everything(own: Settings) -> None:
    cluster.ensure(own)
    migrate.migrate(own)
    database = cluster.open_database(own, Role.OWNER)
    add_product(database)
    first = cluster.status(own).process_id
    assert first is not None
    os.kill(first, signal.SIGKILL)
    while cluster.status(own).running:
        threading.Event().wait(0.02)
    assert (own.state / "postgresql" / "data" / "postmaster.pid").exists()
    cluster.ensure(own)
    assert cluster.status(own).process_id not in (None, first)
    assert products.get(database, "hello").name == "hello"
    database.close()


def test_a_server_that_dies_under_a_statement_is_away() -> None:
    """Not broken: nobody is told to look at the schema's age. The driver says no kind of error there."""
    with pytest.raises(DatabaseAway, match="lost"), connection._our_errors():
        raise psycopg2.DatabaseError("server closed the connection unexpectedly")


def test_what_a_killed_server_left_at_work_does_not_keep_the_next_one(own: Settings) -> None:
    """Its first process is killed alone; another one computes, and does not look whether it is still there."""
    cluster.ensure(own)
    database = cluster.open_database(own, Role.OWNER)
    numbers: list[int] = []

    def compute() -> None:
        with contextlib.suppress(InfrastructureError), database.transaction() as cursor:
            numbers.append(cursor.value("SELECT pg_backend_pid()"))
            cursor.execute("SELECT count(*) FROM generate_series(1, 10000000000) AS number")

    computing = threading.Thread(target=compute)
    computing.start()
    while not numbers:
        threading.Event().wait(0.02)
    first = cluster.status(own).process_id
    assert first is not None
    os.kill(first, signal.SIGKILL)
    while cluster.status(own).running:
        threading.Event().wait(0.02)
    cluster.ensure(own)
    assert cluster.status(own).running
    computing.join(60)
    assert not computing.is_alive()
    database.close()


def test_the_number_of_a_dead_server_may_be_another_process_s(own: Settings) -> None:
    cluster.ensure(own)
    cluster.stop(own)
    pid_file = own.state / "postgresql" / "data" / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{own.state}/postgresql/data\n")
    assert not cluster.status(own).running
    cluster.ensure(own)
    assert cluster.status(own).running


def test_to_ensure_twice_changes_nothing(own: Settings) -> None:
    cluster.ensure(own)
    before = cluster.status(own)
    cluster.ensure(own)
    assert cluster.status(own) == before
    secrets = own.state / "secrets"
    assert {file.stat().st_mode & 0o777 for file in secrets.iterdir()} == {0o600}
    assert secrets.stat().st_mode & 0o777 == 0o700
    cluster.stop(own)
    cluster.stop(own)
    assert cluster.status(own).process_id is None


def test_a_state_directory_that_postgresql_cannot_enter_is_said(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    settings = site.load({"CLEANROOM_STATE": str(closed / "state"), "CLEANROOM_SITE": str(tmp_path)})
    if os.geteuid() == 0:
        with pytest.raises(InfrastructureError, match="cannot enter") as raised:
            cluster.ensure(settings)
        assert "chmod o+x" in str(raised.value)
    else:
        cluster.ensure(settings)
        cluster.stop(settings)


def test_the_site_s_own_server_is_used_by_set_role(server: Server, name: str, tmp_path: Path) -> None:
    url = server.url(Role.OWNER, name)
    settings = site.load(
        {"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path), "CLEANROOM_DATABASE_URL": url}
    )
    assert cluster.database_url(settings, Role.OWNER) == url
    for role in Role:
        assert _current_user(cluster.open_database(settings, role)) == role.account
    cluster.ensure(settings)
    assert not (tmp_path / "postgresql").exists()


def test_a_role_s_own_url_wins(server: Server, name: str, tmp_path: Path) -> None:
    settings = site.load(
        {
            "CLEANROOM_STATE": str(tmp_path),
            "CLEANROOM_SITE": str(tmp_path),
            "CLEANROOM_DATABASE_URL": server.url(Role.OWNER, name),
            "CLEANROOM_DATABASE_WEB_URL": server.url(Role.WEB, name),
        }
    )
    assert cluster.database_url(settings, Role.WEB) == server.url(Role.WEB, name)
    assert _current_user(cluster.open_database(settings, Role.WEB)) == "cleanroom_web"


def test_an_url_that_is_none_is_an_input_error(tmp_path: Path) -> None:
    settings = site.load(
        {"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path), "CLEANROOM_DATABASE_URL": "mysql://x/y"}
    )
    with pytest.raises(InputError, match="postgresql://"):
        cluster.database_url(settings, Role.OWNER)


def _current_user(database: Database) -> object:
    with database.transaction() as cursor:
        user = cursor.value("SELECT current_user")
    database.close()
    return user


def test_a_statement_is_prepared_once_and_gives_what_it_would_otherwise(owner: Database) -> None:
    text = "SELECT %(a)s::int + %(b)s::int AS sum, 7 %% 4 AS rest, %(words)s::text[] AS words, %(a)s::int AS a"
    with owner.transaction() as cursor:
        for a in (1, 2):
            row = cursor.row(Prepared(text), a=a, b=10, words=("x", "y"))
            assert row == {"sum": a + 10, "rest": 3, "words": ["x", "y"], "a": a}
        assert cursor.value("SELECT count(*) FROM pg_prepared_statements") == 1
        assert cursor.rows(Prepared("SELECT 7 % 4 AS rest")) == [{"rest": 3}]


def test_tables_may_change_under_prepared_statements(owner: Database) -> None:
    wanted = Prepared("SELECT * FROM cleanroom.product WHERE name = %(name)s")
    with owner.transaction() as cursor:
        assert cursor.rows(wanted, name="none") == []
    with owner.transaction() as cursor:
        cursor.execute("ALTER TABLE cleanroom.product ADD COLUMN further int")
    with pytest.raises(DatabaseBusy, match="has changed"), owner.transaction() as cursor:
        cursor.rows(wanted, name="none")
    with owner.transaction() as cursor:
        assert cursor.rows(wanted, name="none") == []

"""The schema: migrations, words, invariants, wake-ups."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from enum import StrEnum

import pytest
from database_server import Server

from cleanroom_db import comparisons, conflicts, listen, migrate, packages, releases, states
from cleanroom_db.connection import ConstraintViolated, Database
from cleanroom_db.listen import Listener
from cleanroom_db.roles import Role
from cleanroom_recipes.model import Outcome, RefKind

COMMIT = "a" * 40
OTHER = "b" * 40


def test_applying_again_changes_nothing(owner: Database) -> None:
    assert migrate.apply(owner) == []
    migrate.check(owner)


def test_two_processes_migrate_an_empty_database_at_once(server: Server, name: str) -> None:
    server.execute(f"CREATE DATABASE {name}_empty TEMPLATE template1")
    databases = [Database(server.url(Role.OWNER, f"{name}_empty")) for _ in range(2)]
    applied: list[list[str]] = []
    threads = [threading.Thread(target=lambda one=one: applied.append(migrate.apply(one))) for one in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for database in databases:
        database.close()
    server.execute(f"DROP DATABASE {name}_empty")
    # Each step once, by whichever of them was first.
    together = sorted(name for names in applied for name in names)
    assert together == [f"{one.number:04}_{one.name}" for one in migrate.migrations()]


def test_releases_from_before_there_were_gates_keep_theirs(server: Server, name: str) -> None:
    server.execute(f"CREATE DATABASE {name}_old TEMPLATE template1")
    owner = Database(server.url(Role.OWNER, f"{name}_old"))
    earlier = [one for one in migrate.migrations() if one.number < _number("gates")]
    with owner.transaction() as cursor:
        for one in earlier:
            cursor.execute(one.statements)
            cursor.execute(
                "INSERT INTO cleanroom.migration VALUES (%(number)s, %(name)s, %(checksum)s)",
                number=one.number,
                name=one.name,
                checksum=one.checksum,
            )
        cursor.execute("INSERT INTO cleanroom.product (name, url) VALUES ('hello', 'https://example.org/hello.git')")
        for ref, recipe in (("v1", {"gates": ["builds", "approval"]}), ("v2", {})):
            cursor.execute(
                "WITH event AS (INSERT INTO cleanroom.ref_event (product, ref, commit) VALUES"
                " ('hello', %(ref)s, %(commit)s) RETURNING id)"
                " INSERT INTO cleanroom.release (product, ref, commit, kind, state, ref_event_id, recipe,"
                " recipe_digest, channel, requested_by, hold_reason) SELECT 'hello', %(ref)s, %(commit)s, 'tag',"
                " 'building', id, %(recipe)s, '', 'testing', 'anna', 'waits for approval' FROM event",
                ref=ref,
                commit=COMMIT,
                recipe=recipe,
            )
    assert len(migrate.apply(owner)) == len(migrate.migrations()) - len(earlier)
    first, second = (releases.find(owner, "hello", ref) for ref in ("v1", "v2"))
    owner.close()
    server.execute(f"DROP DATABASE {name}_old WITH (FORCE)")
    assert (first.gates, first.hold_reason) == (("builds", "approval"), None)
    assert (second.gates, second.hold_reason) == (("builds",), "waits for approval")


def _number(name: str) -> int:
    return next(one.number for one in migrate.migrations() if one.name == name)


def test_a_newer_database_is_refused(owner: Database) -> None:
    with owner.transaction() as cursor:
        cursor.execute("INSERT INTO cleanroom.migration (number, name, checksum) VALUES (9999, 'later', 'x')")
    for use in (migrate.apply, migrate.check):
        with pytest.raises(migrate.SchemaMismatch, match="newer than this program: it has migration 9999_later"):
            use(owner)


def test_a_changed_migration_is_refused(owner: Database) -> None:
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.migration SET checksum = 'x' WHERE number = 1")
    with pytest.raises(migrate.SchemaMismatch, match="changed after it was applied"):
        migrate.apply(owner)


@pytest.mark.parametrize(
    ("name_in_sql", "words"),
    [
        ("outcome", Outcome),
        ("ref_kind", RefKind),
        ("ref_change", states.RefChange),
        ("ref_event_state", states.RefEventState),
        ("tag_kind", states.TagKind),
        ("signature_state", states.SignatureState),
        ("signature_policy", states.SignaturePolicy),
        ("release_state", states.ReleaseState),
        ("publication_state", states.PublicationState),
        ("request_kind", states.RequestKind),
        ("request_state", states.RequestState),
        ("removal", states.Removal),
        ("host_state", states.HostState),
        ("account_role", states.AccountRole),
        ("gate_state", states.GateState),
        ("comparison_base", comparisons.Base),
        ("trial_purpose", states.TrialPurpose),
        ("bisection_axis", states.BisectionAxis),
        ("bisection_state", states.BisectionState),
        ("verdict", states.Verdict),
        ("file_type", packages.FileType),
        ("conflict_kind", conflicts.ConflictKind),
        ("dependency_origin", states.DependencyOrigin),
        ("forge", states.Forge),
        ("notification_event", states.NotificationEvent),
        ("notification_state", states.NotificationState),
    ],
)
def test_words_are_the_same_in_sql_and_python(owner: Database, name_in_sql: str, words: type[StrEnum]) -> None:
    with owner.transaction() as cursor:
        rows = cursor.rows(
            "SELECT enumlabel FROM pg_enum JOIN pg_type ON pg_type.oid = enumtypid"
            " WHERE typname = %(name)s ORDER BY enumsortorder",
            name=name_in_sql,
        )
    assert [row["enumlabel"] for row in rows] == [str(word) for word in words]


def test_every_enum_in_sql_is_compared(owner: Database) -> None:
    with owner.transaction() as cursor:
        count = cursor.value("SELECT count(DISTINCT enumtypid) FROM pg_enum")
    assert count == 26


def test_psql_can_trigger_by_hand(server: Server, owner: Database, name: str) -> None:
    psql = ["psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", server.url(Role.OWNER, name)]
    statements = """
        INSERT INTO cleanroom.product (name, url) VALUES ('hello', 'https://example.org/hello.git');
        INSERT INTO cleanroom.ref_event (product, ref) VALUES ('hello', 'v1');
        INSERT INTO cleanroom.ref_event (product, ref, commit) VALUES ('hello', 'v2', repeat('a', 40));
    """
    subprocess.run(psql, input=statements.encode(), check=True, timeout=60)
    with owner.transaction() as cursor:
        rows = cursor.rows("SELECT ref, kind, change, state, recorded_by FROM cleanroom.ref_event ORDER BY id")
    assert [tuple(row.values()) for row in rows] == [(ref, "tag", "created", "recorded", "sql") for ref in ("v1", "v2")]


@pytest.fixture
def hello(owner: Database) -> Database:
    with owner.transaction() as cursor:
        cursor.execute("INSERT INTO cleanroom.product (name, url) VALUES ('hello', 'https://example.org/hello.git')")
    return owner


@pytest.mark.parametrize("ref", ["", "-v1", "v\n1", "v\x1b[31m", "v" * 256])
def test_names_that_could_harm_are_not_stored(hello: Database, ref: str) -> None:
    with pytest.raises(ConstraintViolated), hello.transaction() as cursor:
        cursor.execute("INSERT INTO cleanroom.ref_event (product, ref) VALUES ('hello', %(ref)s)", ref=ref)


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("INSERT INTO cleanroom.ref_event (product, ref) VALUES ('other', 'v1')", "ref_event_product_fkey"),
        ("INSERT INTO cleanroom.ref_event (product, ref, commit) VALUES ('hello', 'v1', 'abc')", "commit_id_check"),
        ("INSERT INTO cleanroom.ref_event (product, kind, ref) VALUES ('hello', 'commit', 'main')", "ref_event_check"),
        ("INSERT INTO cleanroom.product (name, url) VALUES ('../hello', 'x')", "product_name_check"),
        ("INSERT INTO cleanroom.product (name, url) VALUES ('other', '-x')", "product_url_check"),
    ],
)
def test_invariants_hold(hello: Database, statement: str, constraint: str) -> None:
    with pytest.raises(ConstraintViolated) as raised, hello.transaction() as cursor:
        cursor.execute(statement)
    assert raised.value.constraint == constraint


def test_a_ref_waits_once_but_may_come_back(hello: Database) -> None:
    insert = "INSERT INTO cleanroom.ref_event (product, ref, commit) VALUES ('hello', 'v1', %(commit)s)"
    with hello.transaction() as cursor:
        cursor.execute(insert, commit=COMMIT)
    with pytest.raises(ConstraintViolated) as raised, hello.transaction() as cursor:
        cursor.execute(insert, commit=COMMIT)
    assert raised.value.constraint == "ref_event_waits_once"
    with hello.transaction() as cursor:
        for commit, before in ((OTHER, COMMIT), (COMMIT, OTHER), (OTHER, COMMIT)):
            cursor.execute(
                "INSERT INTO cleanroom.ref_event (product, ref, commit, previous_commit, change, state, why)"
                " VALUES ('hello', 'v1', %(commit)s, %(before)s, 'moved', 'ignored', 'moved')",
                commit=commit,
                before=before,
            )


def test_inserts_wake_the_listener_once_a_statement(
    server: Server, name: str, hello: Database, connect: Callable[[Role], Database]
) -> None:
    listener = Listener(server.url(Role.REFS, name), [listen.REF_EVENT])
    assert listener.wait(10) == {listen.REF_EVENT}  # it has just connected: it may have missed something
    assert listener.wait(0) == set()
    with hello.transaction() as cursor:
        cursor.execute(
            "INSERT INTO cleanroom.ref_event (product, ref) SELECT 'hello', 'v' || n FROM generate_series(1, 1000) n"
        )
    assert listener.wait(10) == {listen.REF_EVENT}
    assert listener.wait(0.1) == set()
    listener.close()


def test_a_listener_can_be_interrupted(server: Server, name: str) -> None:
    listener = Listener(server.url(Role.REFS, name), [listen.REF_EVENT])
    listener.wait(10)
    timer = threading.Timer(0.05, listener.interrupt)
    timer.start()
    assert listener.wait(300) == set()
    timer.join()
    listener.close()

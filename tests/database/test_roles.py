"""Roles: each process can do its work, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from database_server import COMMIT, Server, add_product, begin, claim, end, plan, record_tags

from cleanroom_base import settings as site
from cleanroom_base.errors import InputError
from cleanroom_db import audit, cluster, generations, migrate, products, publications, ref_events, releases, services
from cleanroom_db.connection import Database, DatabaseRefused
from cleanroom_db.ref_events import NewRef
from cleanroom_db.roles import PROCESSES, Role
from cleanroom_db.view import release_view

TABLES = [
    *("product", "ref_event", "release", "build", "attempt", "phase", "step", "test_case", "artifact"),
    *("publication", "generation", "channel_package", "service", "host", "audit", "migration"),
    *("package", "path", "package_file", "conflict_check", "conflict"),
    *("comparison", "gate_result", "gate_waiver", "trial", "reproduction", "reproduced_artifact"),
    *("bisection", "bisection_candidate", "bisection_probe"),
    *("product_need", "product_dependency", "release_wait", "dependent_choice", "package_state", "night"),
    *("channel_release", "repository_request", "security_fix", "union_choice", "union_member"),
    *("canary", "delivery", "delivered_file"),
    *("webhook_delivery", "look_wish", "state_change", "standing", "notification"),
    *("account", "account_grant", "session", "api_token", "sign_in_failure"),
    *("signing_key", "provenance", "disk", "worker"),
]

# What a role may do beside reading: insert, update (some column), delete.
ALLOWED = {
    Role.WEB: {},
    Role.READER: {},
    Role.REFS: {"ref_event": "IUD", "product": "U", "service": "IU", "audit": "I", "look_wish": "D"},
    Role.HOOKS: {"webhook_delivery": "ID", "look_wish": "IU"},
    Role.NOTIFICATIONS: {"state_change": "UD", "standing": "IU", "notification": "IUD", "service": "IU"},
    Role.ACCESS: {
        "account": "I",
        "account_grant": "I",
        "session": "IUD",
        "api_token": "IU",
        "sign_in_failure": "ID",
        "audit": "I",
        "release": "U",
        "build": "I",
        "attempt": "I",
        "gate_result": "ID",
        "gate_waiver": "I",
        "conflict_check": "D",
        "dependent_choice": "D",
        "union_choice": "D",
        "publication": "IU",
        "repository_request": "I",
        "trial": "I",
        "reproduction": "I",
        "host": "U",
    },
    Role.MASTER: {
        "ref_event": "U",
        "release": "IU",
        "trial": "IU",
        "bisection": "U",
        "bisection_candidate": "U",
        "bisection_probe": "IU",
        "build": "I",
        "attempt": "IU",
        "phase": "IU",
        "step": "IU",
        "test_case": "IU",
        "artifact": "IU",
        "disk": "IU",
        "worker": "IU",
        "publication": "I",
        "service": "IU",
        "host": "IU",
        "audit": "I",
        "comparison": "I",
        "gate_result": "ID",
        "package": "ID",
        "path": "I",
        "package_file": "I",
        "conflict_check": "ID",
        "conflict": "I",
        "product_need": "ID",
        "release_wait": "I",
        "dependent_choice": "ID",
        "package_state": "I",
        "night": "IU",
        "reproduction": "IU",
        "reproduced_artifact": "I",
        "union_choice": "IUD",
        "union_member": "ID",
        "canary": "U",
    },
    Role.PUBLISHER: {
        "signing_key": "IU",
        "provenance": "IU",
        "generation": "IUD",
        "channel_package": "IUD",
        "channel_release": "IUD",
        "repository_request": "U",
        "security_fix": "I",
        "publication": "U",
        "release": "U",
        "service": "IU",
        "audit": "I",
        "package": "I",
        "path": "I",
        "package_file": "I",
        "conflict_check": "ID",
        "conflict": "I",
        "gate_result": "U",
        "canary": "IU",
        "delivery": "IU",
        "delivered_file": "IUD",
    },
}


@pytest.mark.parametrize("role", list(ALLOWED))
def test_a_role_has_exactly_its_rights(owner: Database, role: Role) -> None:
    with owner.transaction() as cursor:
        rows = cursor.rows("SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'cleanroom'")
        assert {row["name"] for row in rows} == set(TABLES)
        rights = {
            table: "".join(
                letter
                for letter, right, check in (
                    ("I", "INSERT", "has_any_column_privilege"),
                    ("U", "UPDATE", "has_any_column_privilege"),
                    ("D", "DELETE", "has_table_privilege"),
                )
                if cursor.value(
                    f"SELECT {check}(%(role)s, %(table)s, %(right)s)",
                    role=role.account,
                    table=f"cleanroom.{table}",
                    right=right,
                )
            )
            for table in TABLES
        }
    assert {table: granted for table, granted in rights.items() if granted} == ALLOWED[role]


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        (Role.WEB, "UPDATE cleanroom.release SET why = 'x'"),
        (Role.WEB, "CREATE TABLE cleanroom.mine ()"),
        (Role.WEB, "CREATE TABLE public.mine ()"),
        (Role.PUBLISHER, "UPDATE cleanroom.attempt SET outcome = 'passed', finished_at = now()"),
        (Role.PUBLISHER, "UPDATE cleanroom.release SET commit = repeat('b', 40)"),
        (Role.PUBLISHER, "INSERT INTO cleanroom.publication (release_id, channel, requested_by) VALUES (1, 'x', 'x')"),
        (Role.MASTER, "UPDATE cleanroom.publication SET state = 'published', generation = 1"),
        (Role.MASTER, "UPDATE cleanroom.ref_event SET commit = repeat('b', 40)"),
        (Role.MASTER, "DELETE FROM cleanroom.artifact"),
        # Gates are waived by people.
        (
            Role.MASTER,
            "INSERT INTO cleanroom.gate_waiver (release_id, gate, actor, reason, expires_at)"
            " VALUES (1, 'no-regression', 'master', 'why not', now() + interval '1 day')",
        ),
        (Role.PUBLISHER, "UPDATE cleanroom.release SET gates = '{builds}'"),
        (Role.PUBLISHER, "DELETE FROM cleanroom.gate_result"),
        (Role.REFS, "UPDATE cleanroom.product SET recipe = '{}'"),
        (Role.REFS, "INSERT INTO cleanroom.release DEFAULT VALUES"),
        (Role.REFS, "SELECT set_config('role', 'cleanroom_master', false)"),
    ],
)
def test_a_role_is_refused_what_is_not_its_work(
    owner: Database, connect: Callable[[Role], Database], role: Role, statement: str
) -> None:
    add_product(owner)
    claim(owner, "v1")
    database = connect(role)
    if role is Role.WEB:
        # Its sessions only read, by default; what counts is that it may do nothing else.
        statement = f"SET TRANSACTION READ WRITE; {statement}"
    with pytest.raises(DatabaseRefused, match="permission denied"), database.transaction() as cursor:
        cursor.execute(statement)


def test_every_role_can_do_its_work(
    owner: Database, master: Database, publisher: Database, connect: Callable[[Role], Database]
) -> None:
    add_product(owner)
    refs = connect(Role.REFS)
    products.lock(refs, "hello")
    [event] = ref_events.record_many(refs, "hello", [NewRef("v1")], recorded_by="hook")
    ref_events.resolve(refs, event, ref_events.RefDetails(COMMIT))
    products.looked(refs, "hello", None)
    services.heartbeat(refs, "refs", "running", 1)
    release = releases.claim_next(master, plan)
    assert release is not None
    releases.hold(master, release.id, "anna", "wait")
    end(master, begin(master, release))
    releases.approve(master, release.id, "anna", "go")
    [publication] = publications.pending(publisher)
    generation = generations.prepare(publisher, actor="publisher", reason="v1", publications=[publication.id])
    generations.switched(publisher, generation)
    audit.record(publisher, "publisher", "publish", "hello v1")
    services.heartbeat(publisher, "publisher", "running", 1)
    assert release_view(connect(Role.WEB), "hello", "v1")["state"] == "published"


def test_the_master_owns_buildbot_s_schema(master: Database, connect: Callable[[Role], Database]) -> None:
    with master.transaction() as cursor:
        cursor.execute("CREATE TABLE buildbot.mine ()")
    with pytest.raises(DatabaseRefused), connect(Role.WEB).transaction() as cursor:
        cursor.execute("SELECT * FROM buildbot.mine")


def test_a_site_s_own_server_needs_no_superuser(server: Server, name: str, tmp_path: Path) -> None:
    server.execute(f"CREATE ROLE {name}_site LOGIN CREATEROLE PASSWORD 'secret'")
    server.execute(f"CREATE DATABASE {name}_own OWNER {name}_site")
    url = server.url(Role.OWNER, f"{name}_own").replace("//cleanroom:", f"//{name}_site:", 1)
    url = url.replace(cluster.secret(server.settings, Role.OWNER), "secret")
    settings = site.load(
        {"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path), "CLEANROOM_DATABASE_URL": url}
    )
    migrate.migrate(settings)
    owner, master = (cluster.open_database(settings, role) for role in (Role.OWNER, Role.MASTER))
    add_product(owner)
    record_tags(owner, "v1")
    assert releases.claim_next(master, plan) is not None
    with pytest.raises(DatabaseRefused):
        add_product(master, "other")
    # The rights are set at every start, also after the administrator took back what made the roles.
    server.execute(f"ALTER ROLE {name}_site NOCREATEROLE")
    migrate.migrate(settings)
    owner.close()
    master.close()
    server.execute(f"DROP DATABASE {name}_own WITH (FORCE)")


def test_an_owner_who_may_not_act_as_the_roles_is_told_what_to_do(server: Server, name: str, tmp_path: Path) -> None:
    server.execute(f"CREATE ROLE {name}_poor LOGIN PASSWORD 'secret'")
    server.execute(f"CREATE DATABASE {name}_own OWNER {name}_poor")
    url = server.url(Role.OWNER, f"{name}_own").replace("//cleanroom:", f"//{name}_poor:", 1)
    poor = Database(url.replace(cluster.secret(server.settings, Role.OWNER), "secret"))
    with pytest.raises(DatabaseRefused) as raised:
        migrate.apply(poor)
    assert "let an administrator run: CREATE ROLE" in str(raised.value)
    poor.close()
    server.execute(f"DROP DATABASE {name}_own WITH (FORCE)")


def test_the_roles_are_let_in_by_passwords_from_files(server: Server, name: str, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.mkdir()
    (passwords / "database-owner").write_text(cluster.secret(server.settings, Role.OWNER))
    url = server.url(Role.OWNER, name).replace(f":{quote(cluster.secret(server.settings, Role.OWNER))}@", "@")
    given = {"CLEANROOM_DATABASE_URL": url, "CLEANROOM_DATABASE_PASSWORDS": str(passwords)}
    settings = site.load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path), **given})
    owner = cluster.open_database(settings, Role.OWNER)
    try:
        with pytest.raises(InputError, match="the password of cleanroom_master cannot be read"):
            cluster.let_in(settings, owner)
        # The other tests of this server go on with the passwords that it has.
        for role in PROCESSES:
            (passwords / f"database-{role}").write_text(cluster.secret(server.settings, role) + "\n")
        assert cluster.let_in(settings, owner) == [role.account for role in PROCESSES]
    finally:
        owner.close()
    for role in PROCESSES:
        database = cluster.open_database(settings, role)
        with database.transaction() as cursor:
            assert cursor.value("SELECT session_user") == role.account
        database.close()
    (passwords / "database-web").write_text("wrong")
    with pytest.raises(DatabaseRefused), cluster.open_database(settings, Role.WEB).transaction():
        pass
    (passwords / "database-web").write_text("")
    with pytest.raises(InputError, match="is empty"):
        cluster.open_database(settings, Role.WEB)

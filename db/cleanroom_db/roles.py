"""The database roles: each process gets what its work needs, and no more."""

from __future__ import annotations

from enum import StrEnum
from importlib import resources

from cleanroom_db.connection import Cursor, DatabaseRefused, literal


class Role(StrEnum):
    """Who connects. The owner migrates and administers; the others are the processes."""

    OWNER = "owner"
    MASTER = "master"
    PUBLISHER = "publisher"
    WEB = "web"
    REFS = "refs"
    HOOKS = "hooks"
    NOTIFICATIONS = "notifications"
    # The web status where somebody is signed in; what it shows to everybody it reads as `web`.
    ACCESS = "access"
    # What `web` becomes for somebody who may read some products: it is shown their rows and no others, see `readable`.
    READER = "reader"

    @property
    def account(self) -> str:
        """The role's name in PostgreSQL, where the owner is whoever owns the database."""
        return "cleanroom" if self is Role.OWNER else f"cleanroom_{self}"


PROCESSES = tuple(role for role in Role if role not in (Role.OWNER, Role.READER))


def create(cursor: Cursor) -> None:
    """Make the roles that are missing, without a login, and let the present user act as them."""
    for role in (*PROCESSES, Role.READER):
        known = cursor.value("SELECT 1 FROM pg_roles WHERE rolname = %(name)s", name=role.account)
        try:
            if known is None:
                cursor.execute(f"CREATE ROLE {role.account} NOLOGIN")
                if role is Role.WEB:
                    cursor.execute(f"ALTER ROLE {role.account} SET default_transaction_read_only = on")
            if not cursor.value("SELECT pg_has_role(current_user, %(name)s, 'MEMBER')", name=role.account):
                cursor.execute(f"GRANT {role.account} TO CURRENT_USER")
            if role is Role.READER and not cursor.value(
                "SELECT pg_has_role(%(web)s, %(name)s, 'MEMBER')", web=Role.WEB.account, name=role.account
            ):
                cursor.execute(f"GRANT {role.account} TO {Role.WEB.account}")
        except DatabaseRefused as error:
            raise DatabaseRefused(
                f"{error.message} ({role.account})",
                hint="let an administrator run: CREATE ROLE NAME; GRANT NAME TO OWNER; for each of "
                + ", ".join(process.account for process in (*PROCESSES, Role.READER))
                + f"; GRANT {Role.READER.account} TO {Role.WEB.account};",
            ) from error


def grant(cursor: Cursor) -> None:
    """Give every role, which is there, exactly its rights in this database."""
    cursor.execute(resources.files("cleanroom_db").joinpath("grants.sql").read_text(encoding="utf-8"))


def allow_login(cursor: Cursor, role: Role, password: str) -> None:
    """Let a role log in with a password."""
    cursor.execute(f"ALTER ROLE {role.account} LOGIN PASSWORD {literal(password)}")

"""Accounts: the people who may do something through the web status, and what they may do.

The command line has the rights of the database's owner and needs no account; accounts are made there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from cleanroom_base.errors import InputError
from cleanroom_db import audit, products, sessions, tokens
from cleanroom_db.connection import Cursor, Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import AccountRole

_SQL = load("accounts")
_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")
_NAMES_TRIED = 20


class UnknownAccount(InputError):
    """There is no account of this name."""


@dataclass(frozen=True)
class Grant(Entity):
    """A role that an account has. `product` None: for all."""

    role: AccountRole
    product: str | None

    def covers(self, role: AccountRole, product: str | None) -> bool:
        """Whether it gives a role for a product (None: for all)."""
        return self.role.includes(role) and self.product in (None, product)


@dataclass(frozen=True)
class Account(Entity):
    """Somebody. `password` is Argon2's encoded hash; None: signs in otherwise, or not at all."""

    id: int
    name: str
    password: str | None
    issuer: str | None
    subject: str | None
    created_at: datetime
    created_by: str
    removed_at: datetime | None


@dataclass(frozen=True)
class Holder:
    """Whoever acts: an account and what it may do, which is less for one of its tokens.

    `token` is the name of the token by which it acts.
    """

    account: Account
    grants: tuple[Grant, ...]
    token: str | None = None

    @property
    def name(self) -> str:
        """Who it is, as the audit log says it."""
        return self.account.name if self.token is None else f"{self.account.name} (token {self.token})"

    def may(self, role: AccountRole, product: str | None = None) -> bool:
        """Whether it has a role for a product (None: for all of them)."""
        return any(grant.covers(role, product) for grant in self.grants)

    @property
    def readable(self) -> frozenset[str] | None:
        """The products that it may read, where reading is not for everybody; None: all."""
        products = {grant.product for grant in self.grants if grant.role.includes(AccountRole.READER)}
        return None if None in products else frozenset(one for one in products if one is not None)

    def may_somewhere(self, role: AccountRole) -> bool:
        """Whether it has a role for at least one product."""
        return any(grant.role.includes(role) for grant in self.grants)

    def limited(self, role: AccountRole, product: str | None, token: str) -> Holder:
        """The same by a token that may do at most what a role may, for one product or (None) for all."""
        return replace(self, grants=tuple(_limited(self.grants, role, product)), token=token)


def _limited(grants: Iterable[Grant], role: AccountRole, product: str | None) -> Iterable[Grant]:
    for grant in grants:
        if product is None or grant.product in (None, product):
            yield Grant(role if grant.role.includes(role) else grant.role, grant.product or product)


def add(
    database: Database,
    name: str,
    *,
    actor: str,
    password: str | None = None,
    issuer: str | None = None,
    subject: str | None = None,
) -> Account:
    """Make an account; one that was removed comes back without what it had. Raises InputError."""
    if _NAME.fullmatch(name) is None:
        raise InputError(
            f"{name[:100]!r} cannot be an account's name",
            hint="lower-case letters, digits, and . _ @ + - inside; at most 64 characters",
        )
    with database.transaction() as cursor:
        if issuer is not None and (known := _by_subject(cursor, issuer, str(subject))) and known.name != name:
            raise InputError(f"who is known to {issuer} as {subject} has the account {known.name!r}")
        row = cursor.row(
            _SQL["insert"], name=name, password=password, issuer=issuer, subject=subject, created_by=plain(actor)
        )
        if row is None:
            raise InputError(f"there is an account {name!r} already", hint="'cleanroom account list' shows all")
        audit.record(database, actor, "account add", name)
        return get(database, name)


def get(database: Database, name: str) -> Account:
    """The account of a name. Raises UnknownAccount, also for a removed one."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["get"], name=plain(name))
    if row is None:
        raise UnknownAccount(f"there is no account {name[:100]!r}", hint="'cleanroom account list' shows all")
    return Account.from_row(row)


def find(database: Database, name: str) -> Account | None:
    """The account of a name, None where there is none."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["get"], name=plain(name))
    return None if row is None else Account.from_row(row)


def any_there(database: Database) -> bool:
    """Whether there is an account."""
    with database.transaction() as cursor:
        return bool(cursor.value(_SQL["any"]))


def list_all(database: Database) -> list[Holder]:
    """All accounts with what they may do, by name."""
    with database.transaction() as cursor:
        found: dict[int, list[Grant]] = {}
        for row in cursor.rows(_SQL["all_grants"]):
            found.setdefault(row["account"], []).append(Grant.from_row(row))
        known = [Account.from_row(row) for row in cursor.rows(_SQL["list"])]
    return [Holder(account, tuple(found.get(account.id, ()))) for account in known]


def holder(database: Database, account: Account) -> Holder:
    """An account with what it may do."""
    with database.transaction() as cursor:
        return Holder(account, tuple(Grant.from_row(row) for row in cursor.rows(_SQL["grants"], id=account.id)))


def by_id(database: Database, account_id: int) -> Holder | None:
    """An account with what it may do; None once it is removed."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["by_id"], id=account_id)
        return None if row is None else holder(database, Account.from_row(row))


def set_password(database: Database, name: str, password: str, *, actor: str) -> None:
    """Give an account another password; whoever is signed in to it has to do so again. Raises UnknownAccount."""
    with database.transaction() as cursor:
        account = get(database, name)
        cursor.execute(_SQL["set_password"], id=account.id, password=password)
        sessions.end_all(cursor, account.id)
        audit.record(database, actor, "account password", name)


def change_password(database: Database, session: str, password: str, address: str) -> int:
    """Give the account of a session another password; all its sessions end, this one too. Returns the account.

    Raises InputError where it has no password to change.
    """
    with database.transaction() as cursor:
        row = cursor.row(
            _SQL["change_password"], secret=sessions.digest(session), password=password, address=plain(address)
        )
    account = None if row is None else row["change_password"]
    if account is None:
        raise InputError("this account has no password", hint="it signs in through the OpenID Connect provider")
    return int(account)


def remove(database: Database, name: str, *, actor: str) -> None:
    """Let somebody in no more: roles, sessions and tokens end. Raises UnknownAccount."""
    with database.transaction() as cursor:
        account = get(database, name)
        cursor.execute(_SQL["remove"], id=account.id)
        cursor.execute(_SQL["revoke_all"], id=account.id)
        sessions.end_all(cursor, account.id)
        tokens.revoke_all(cursor, account.id)
        audit.record(database, actor, "account remove", name)


def grant(database: Database, name: str, role: AccountRole, product: str | None, *, actor: str) -> bool:
    """Give an account a role for a product (None: for all); False where it has that. Raises InputError."""
    with database.transaction() as cursor:
        account = get(database, name)
        if product is not None:
            products.get(database, product)
        if not cursor.execute(_SQL["grant"], id=account.id, role=role, product=product, granted_by=plain(actor)):
            return False
        audit.record(database, actor, "account grant", name, detail={"role": role, "product": product})
        return True


def revoke(database: Database, name: str, role: AccountRole, product: str | None, *, actor: str) -> None:
    """Take a role from an account; what it had for one product and for all are two. Raises InputError."""
    with database.transaction() as cursor:
        account = get(database, name)
        if not cursor.execute(_SQL["revoke"], id=account.id, role=role, product=product):
            raise InputError(
                f"{name} has no grant of {role} for {product or 'all products'}",
                hint="'cleanroom account list' shows what there is",
            )
        audit.record(database, actor, "account revoke", name, detail={"role": role, "product": product})


def from_provider(database: Database, issuer: str, subject: str, wish: str, *, may_begin: bool) -> Account | None:
    """The account of somebody whom a provider of OpenID Connect knows; None where there is none.

    With `may_begin` whoever is new gets one that may read, called as `wish` says or nearly so. An account that was
    removed stays so.
    """
    with database.transaction() as cursor:
        known = _by_subject(cursor, issuer, subject)
        if known is not None or not may_begin:
            return None if known is None or known.removed_at is not None else known
        base = re.sub(r"[^a-z0-9._@+-]", "-", wish.lower()).lstrip("._@+-")[:56] or "account"
        for number in range(1, _NAMES_TRIED):
            name = base if number == 1 else f"{base}-{number}"
            made = cursor.value(_SQL["insert_from_provider"], name=name, issuer=issuer, subject=plain(subject))
            if made is not None:
                cursor.execute(_SQL["grant_reading"], id=made, granted_by=name)
                audit.record(database, name, "account add", name, detail={"issuer": issuer, "subject": subject})
                return get(database, name)
            # Somebody else came first, perhaps the same person in another window.
            if (known := _by_subject(cursor, issuer, subject)) is not None:
                return known
    raise InputError(f"there are {_NAMES_TRIED} accounts called like {base!r} already")


def _by_subject(cursor: Cursor, issuer: str, subject: str) -> Account | None:
    row = cursor.row(_SQL["by_subject"], issuer=issuer, subject=plain(subject))
    return None if row is None else Account.from_row(row)

"""`cleanroom account` and `cleanroom audit`: who may do what through the web status, and who did what."""

from __future__ import annotations

import argparse
import getpass
import sys

from cleanroom_base.errors import InputError
from cleanroom_db import accounts, audit
from cleanroom_db.accounts import Holder
from cleanroom_db.states import AccountRole
from cleanroom_master import passwords
from cleanroom_master.cli.frame import Commands, Context, read_file

ROLES = [str(role) for role in AccountRole]
_ROLES_TOLD = (
    "reader reads, where web.anonymous is none; developer also retries and holds; manager (release manager) also"
    " approves, waives, promotes, withdraws and, for all products, rolls back; administrator may do everything."
)
_AUDITED = ["at", "actor", "action", "subject", "allowed", "reason", "written_by"]


def register(commands: Commands) -> None:
    """Declare the verbs of `account` and `audit`."""
    account = commands.noun("account", "people who sign in to the web status")
    adding = account.verb(
        "add",
        add,
        "let somebody sign in",
        "cleanroom account add anna --role manager --product hello",
        about="The password is asked for at a terminal, or read from a file. With --openid the OpenID Connect provider"
        f" (openid.issuer) knows the person under that subject, and no password is needed.\n{_ROLES_TOLD}",
    )
    adding.add_argument("name")
    adding.add_argument("--role", choices=ROLES, help="what the account may do (default: nothing yet)")
    adding.add_argument("--product", metavar="PRODUCT", help="only for this product (default: for all)")
    secret = adding.add_mutually_exclusive_group()
    _add_password_file(secret)
    secret.add_argument("--openid", metavar="SUBJECT", help="signs in through the OpenID Connect provider")
    account.verb("list", list_all, "show all accounts and what they may do", "cleanroom account list --format json")
    removing = account.verb(
        "remove", remove, "let somebody in no more; sessions and tokens end", "cleanroom account remove anna"
    )
    removing.add_argument("name")
    changing = account.verb(
        "password", password, "give an account another password; its sessions end", "cleanroom account password anna"
    )
    changing.add_argument("name")
    _add_password_file(changing)
    for name, handler, summary in (
        ("grant", grant, "give an account a role"),
        ("revoke", revoke, "take a role from an account"),
    ):
        verb = account.verb(name, handler, summary, f"cleanroom account {name} anna manager --product hello")
        verb.description = f"{summary}\n\n{_ROLES_TOLD}"
        verb.add_argument("name")
        verb.add_argument("role", choices=ROLES)
        verb.add_argument("--product", metavar="PRODUCT", help="for this product (default: for all)")
    trail = commands.noun("audit", "who did what, and what was refused")
    listing = trail.verb("list", list_audit, "show the latest entries", 'cleanroom audit list --subject "hello v2.10"')
    listing.add_argument("--subject", help="only of this release, generation or account")
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (default 50)")


def _add_password_file(where: argparse._ActionsContainer) -> None:
    where.add_argument("--password-file", metavar="FILE", help="the password is the first line of it; - reads it here")


def add(context: Context, arguments: argparse.Namespace) -> None:
    """Make an account, with a role if one is named."""
    if arguments.product is not None and arguments.role is None:
        raise InputError("--product says for what a role counts", hint="--role names it")
    issuer = context.settings.optional("openid.issuer")
    if arguments.openid is not None and issuer is None:
        raise InputError("this Cleanroom has no OpenID Connect provider", hint="openid.issuer names it")
    by_provider = arguments.openid is not None
    kept = None if by_provider else passwords.hashed(_password(arguments.password_file))
    actor = getpass.getuser()
    with context.database.transaction():
        made = accounts.add(
            context.database,
            arguments.name,
            actor=actor,
            password=kept,
            issuer=issuer if by_provider else None,
            subject=arguments.openid,
        )
        if arguments.role is not None:
            role = AccountRole(arguments.role)
            accounts.grant(context.database, made.name, role, arguments.product, actor=actor)
    shown = _shown(accounts.holder(context.database, made))
    context.emit(shown, f"{made.name} can sign in at {context.settings.web_url}/sign-in")


def list_all(context: Context, _: argparse.Namespace) -> None:
    """Show all accounts."""
    known = accounts.list_all(context.database)
    rows = [_shown(holder) for holder in known]
    if context.as_json or not rows:
        context.rows(rows, [], "no accounts yet; 'cleanroom account add --help' shows how to make one")
        return
    told = [{**_shown(holder), "roles": _roles(holder)} for holder in known]
    context.rows(told, ["name", "roles", "signs_in_by", "created_at"], "")


def remove(context: Context, arguments: argparse.Namespace) -> None:
    """Remove an account."""
    accounts.remove(context.database, arguments.name, actor=getpass.getuser())
    context.emit({"removed": arguments.name}, f"{arguments.name} is let in no more")


def password(context: Context, arguments: argparse.Namespace) -> None:
    """Change a password."""
    accounts.get(context.database, arguments.name)
    kept = passwords.hashed(_password(arguments.password_file))
    accounts.set_password(context.database, arguments.name, kept, actor=getpass.getuser())
    context.emit({"changed": arguments.name}, f"{arguments.name} has a new password and has to sign in again")


def grant(context: Context, arguments: argparse.Namespace) -> None:
    """Give a role."""
    role = AccountRole(arguments.role)
    fresh = accounts.grant(context.database, arguments.name, role, arguments.product, actor=getpass.getuser())
    where = arguments.product or "all products"
    context.emit(
        _changed(context, arguments.name), f"{arguments.name} is {'' if fresh else 'already '}{role} for {where}"
    )


def revoke(context: Context, arguments: argparse.Namespace) -> None:
    """Take a role."""
    role = AccountRole(arguments.role)
    accounts.revoke(context.database, arguments.name, role, arguments.product, actor=getpass.getuser())
    where = arguments.product or "all products"
    context.emit(_changed(context, arguments.name), f"{arguments.name} is no longer {role} for {where}")


def list_audit(context: Context, arguments: argparse.Namespace) -> None:
    """Show who did what, newest first."""
    entries = audit.list_latest(context.database, arguments.subject, limit=arguments.limit)
    rows = [{**{name: getattr(one, name) for name in _AUDITED}, "detail": one.detail} for one in entries]
    context.rows(rows, _AUDITED, "nothing was done by hand yet")


def _changed(context: Context, name: str) -> dict[str, object]:
    return _shown(accounts.holder(context.database, accounts.get(context.database, name)))


def _shown(holder: Holder) -> dict[str, object]:
    account = holder.account
    ways = [word for word, there in (("password", account.password), ("openid", account.subject)) if there is not None]
    return {
        "name": account.name,
        "grants": [{"role": grant.role, "product": grant.product} for grant in holder.grants],
        "signs_in_by": ways,
        "openid_subject": account.subject,
        "created_at": account.created_at,
        "created_by": account.created_by,
    }


def _roles(holder: Holder) -> str:
    return ", ".join(f"{one.role} ({one.product})" if one.product else str(one.role) for one in holder.grants)


def _password(file: str | None) -> str:
    """A password, from a file or from a person who types it twice. Raises InputError."""
    if file is not None:
        return read_file(file).split("\n", 1)[0].removesuffix("\r")
    if not sys.stdin.isatty():
        raise InputError("a password is asked for at a terminal only", hint="--password-file FILE, or - for this input")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != first:
        raise InputError("the two passwords are not the same")
    return first

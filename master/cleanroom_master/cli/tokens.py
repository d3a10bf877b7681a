"""`cleanroom token`: what programs say to the web status instead of signing in."""

from __future__ import annotations

import argparse
import getpass
from datetime import UTC, datetime, timedelta

from cleanroom_base.errors import InputError
from cleanroom_db import accounts, products, tokens
from cleanroom_db.states import AccountRole
from cleanroom_master.cli.accounts import ROLES
from cleanroom_master.cli.frame import Commands, Context

_COLUMNS = ["account", "name", "role", "product", "expires_at", "used_at"]
_DAYS = 90
_MOST_DAYS = 3660


def register(commands: Commands) -> None:
    """Declare the verbs of `token`."""
    token = commands.noun("token", "what programs say to the web status instead of signing in")
    adding = token.verb(
        "add",
        add,
        "make a token of an account; its secret is shown once",
        "cleanroom token add anna ci --role developer --product hello --days 30",
        about="It may do what the account may, at most what the role may, and only for the product if one is named."
        " A program sends it with each request: Authorization: Bearer TOKEN",
    )
    adding.add_argument("account")
    adding.add_argument("name", help="tells the account's tokens apart")
    adding.add_argument("--role", choices=ROLES, default="reader", help="at most what this role may (default reader)")
    adding.add_argument("--product", metavar="PRODUCT", help="only for this product (default: for all)")
    adding.add_argument("--days", type=int, default=_DAYS, metavar="N", help=f"expires after N days (default {_DAYS})")
    listing = token.verb("list", list_all, "show the tokens that were not revoked", "cleanroom token list anna")
    listing.add_argument("account", nargs="?")
    revoking = token.verb("revoke", revoke, "let a token do nothing any more", "cleanroom token revoke anna ci")
    revoking.add_argument("account")
    revoking.add_argument("name")


def add(context: Context, arguments: argparse.Namespace) -> None:
    """Make a token."""
    if not 0 < arguments.days <= _MOST_DAYS:
        raise InputError(f"a token expires after 1 to {_MOST_DAYS} days, not {arguments.days}")
    owner = accounts.get(context.database, arguments.account)
    if arguments.product is not None:
        products.get(context.database, arguments.product)
    made, secret = tokens.add(
        context.database,
        owner.id,
        owner.name,
        arguments.name,
        role=AccountRole(arguments.role),
        product=arguments.product,
        expires_at=datetime.now(UTC) + timedelta(days=arguments.days),
        actor=getpass.getuser(),
    )
    shown = {
        "account": owner.name,
        "name": made.name,
        "role": made.role,
        "product": made.product,
        "expires_at": made.expires_at,
        "token": secret,
    }
    context.emit(shown, f"{secret}\n  it is not shown again; it expires {made.expires_at:%Y-%m-%d}")


def list_all(context: Context, arguments: argparse.Namespace) -> None:
    """Show tokens, without their secrets."""
    owner = None if arguments.account is None else accounts.get(context.database, arguments.account).id
    rows = [
        {
            "account": one.account_name,
            **{name: getattr(one, name) for name in _COLUMNS[1:]},
            "created_at": one.created_at,
            "created_by": one.created_by,
        }
        for one in tokens.list_all(context.database, owner)
    ]
    context.rows(rows, _COLUMNS, "no tokens; 'cleanroom token add --help' shows how to make one")


def revoke(context: Context, arguments: argparse.Namespace) -> None:
    """Revoke a token."""
    owner = accounts.get(context.database, arguments.account)
    tokens.revoke(context.database, owner.id, owner.name, arguments.name, actor=getpass.getuser())
    context.emit({"revoked": arguments.name, "account": owner.name}, f"{arguments.name} does nothing any more")

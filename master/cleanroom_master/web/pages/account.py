"""What may I do, and who may do it for me? One's roles, tokens, sessions and password."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fastapi import APIRouter
from fastapi.responses import RedirectResponse, Response

from cleanroom_base.errors import InputError
from cleanroom_db import accounts, products, sessions, tokens
from cleanroom_db.accounts import Holder
from cleanroom_db.connection import Database
from cleanroom_db.sessions import TooManyAttempts
from cleanroom_db.states import AccountRole
from cleanroom_master import passwords
from cleanroom_master.actions import NotAllowed
from cleanroom_master.web.forms import Form, Sent
from cleanroom_master.web.pages.signing_in import Asking, OfAccess, let_in
from cleanroom_master.web.site import Record
from cleanroom_master.web.templating import Render
from cleanroom_master.web.visitors import Access, SignInNeeded, Visitor

router = APIRouter(include_in_schema=False)

_DAYS = 90
_MOST_DAYS = 366


@router.get("/account")
def account(access: OfAccess, visitor: Asking, render: Render) -> Response:
    """What somebody may do, and by which tokens."""
    return _page(access, visitor, render)


@router.post("/account/tokens")
def add_token(access: OfAccess, record: Record, visitor: Asking, render: Render, form: Sent) -> Response:
    """Make a token, and show it this once."""
    holder = _person(visitor)
    try:
        made, secret = _make(access, record, holder, form)
    except InputError as error:
        return _page(access, visitor, render, form=form, problem=error)
    return _page(access, visitor, render, made=made.name, secret=secret)


@router.post("/account/tokens/revoke")
def revoke_token(access: OfAccess, visitor: Asking, form: Sent) -> Response:
    """Let a token do nothing any more."""
    holder = _person(visitor)
    name = form.text("name")
    tokens.revoke(access.database, holder.account.id, holder.name, name, actor=holder.name)
    return RedirectResponse("/account?done=revoked", 303)


@router.post("/account/password")
def change_password(access: OfAccess, visitor: Asking, render: Render, form: Sent) -> Response:
    """Take another password from whoever knows the present one; all other sessions end."""
    holder = _person(visitor)
    assert visitor.secret is not None
    try:
        sessions.attempt(access.database, holder.name, visitor.address)
        if not passwords.matches(form.raw("current"), holder.account.password):
            raise InputError("the present password is another one")
        if form.raw("password") != form.raw("again"):
            raise InputError("the new password was typed in two ways")
        kept = passwords.hashed(form.raw("password"))
        accounts.change_password(access.database, visitor.secret, kept, visitor.address)
    except InputError as error:
        status = 429 if isinstance(error, TooManyAttempts) else 400
        return _page(access, visitor, render, changing=error, status=status)
    sessions.succeeded(access.database, holder.name)
    return let_in(access, Visitor(None, None, visitor.address), holder.account, "/account?done=password", "password")


def _make(access: Access, record: Database, holder: Holder, form: Form) -> tuple[tokens.Token, str]:
    days, role, product = form.text("days"), form.text("role"), form.text("product") or None
    if not days.isdecimal() or len(days) > 4 or not 0 < int(days) <= _MOST_DAYS:
        raise InputError(f"a token expires after 1 to {_MOST_DAYS} days")
    if role not in list(AccountRole):
        raise InputError(f"there is no role {role[:100]!r}")
    if product is not None:
        products.get(record, product)
    return tokens.add(
        access.database,
        holder.account.id,
        holder.name,
        form.text("name"),
        role=AccountRole(role),
        product=product,
        expires_at=datetime.now(UTC) + timedelta(days=int(days)),
        actor=holder.name,
    )


def _person(visitor: Visitor) -> Holder:
    """Who is signed in: a token makes no tokens. Raises SignInNeeded and NotAllowed."""
    if visitor.holder is None:
        raise SignInNeeded
    if visitor.holder.token is not None:
        raise NotAllowed("that is for who is signed in, and not for a token")
    return visitor.holder


def _page(
    access: Access,
    visitor: Visitor,
    render: Render,
    *,
    form: Form | None = None,
    problem: InputError | None = None,
    changing: InputError | None = None,
    made: str = "",
    secret: str = "",
    status: int | None = None,
) -> Response:
    if visitor.holder is None:
        raise SignInNeeded
    mine = visitor.holder.account
    # Of the roles that a token can have those beyond its account's would be of no use.
    roles = [role for role in AccountRole if visitor.holder.may_somewhere(role)]
    return render(
        "account.html",
        status=status or (200 if problem is None else 400),
        headers={"Cache-Control": "no-store"},
        holder=visitor.holder,
        tokens=tokens.list_all(access.database, mine.id),
        sessions=sessions.count(access.database, mine.id),
        roles=roles,
        days=_DAYS,
        most_days=_MOST_DAYS,
        sent=form or Form({}),
        problem=problem,
        changing=changing,
        made=made,
        secret=secret,
    )

"""Who are you? Signing in and out, with a password or through a provider of OpenID Connect."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import RedirectResponse, Response

from cleanroom_base.errors import InputError
from cleanroom_db import accounts, audit, sessions
from cleanroom_db.accounts import Account
from cleanroom_db.sessions import TooManyAttempts
from cleanroom_master import passwords
from cleanroom_master.web import visitors
from cleanroom_master.web.forms import Sent, local
from cleanroom_master.web.openid import SignInFailed
from cleanroom_master.web.templating import Render
from cleanroom_master.web.visitors import Access, Visitor

router = APIRouter(include_in_schema=False)

# How long somebody may take to sign in, in seconds.
_VISIT = 3600.0
Next = Annotated[str, Query(alias="next", max_length=2000)]


async def _access(request: Request) -> Access:
    access: Access | None = request.app.state.site.access
    if access is None:
        raise InputError("nobody signs in here")
    return access


async def _visitor(request: Request) -> Visitor:
    return visitors.of(request)


# What handlers ask for: `def page(access: OfAccess, visitor: Asking)`.
OfAccess = Annotated[Access, Depends(_access)]
Asking = Annotated[Visitor, Depends(_visitor)]


@router.get("/sign-in")
def form(request: Request, access: OfAccess, render: Render, then: Next = "/") -> Response:
    """The form. It is bound to a cookie, so that nobody can be signed in by another site's form."""
    return _form(request, access, render, then=local(then))


@router.post("/sign-in")
def sign_in(request: Request, access: OfAccess, visitor: Asking, render: Render, form: Sent) -> Response:
    """Let somebody in who knows the password."""
    name, then = form.text("name").lower()[:100], local(form.raw("next"))
    try:
        sessions.attempt(access.database, name, visitor.address)
    except TooManyAttempts as error:
        answer = _form(request, access, render, then=then, name=name, problem=error, status=429)
        answer.headers["Retry-After"] = str(int(sessions.WINDOW))
        return answer
    account = accounts.find(access.database, name)
    if not passwords.matches(form.raw("password"), None if account is None else account.password):
        detail = {"why": "wrong name or password", "address": visitor.address}
        audit.record(access.database, name or "nobody", "sign in", "the web status", detail=detail, allowed=False)
        problem = InputError("The name or the password is wrong.")
        return _form(request, access, render, then=then, name=name, problem=problem, status=400)
    assert account is not None
    sessions.succeeded(access.database, name)
    return let_in(access, visitor, account, then, "password")


@router.post("/sign-out")
def sign_out(access: OfAccess, visitor: Asking, form: Sent) -> Response:
    """End this session, or (`everywhere`) all of them."""
    if visitor.holder is not None and visitor.secret is not None:
        sessions.end(access.database, visitor.secret)
        if form.text("everywhere"):
            with access.database.transaction() as cursor:
                sessions.end_all(cursor, visitor.holder.account.id)
        audit.record(access.database, visitor.name, "sign out", "the web status")
    answer = RedirectResponse("/sign-in" if access.closed else "/", 303)
    access.drop_cookie(answer, "session")
    return answer


@router.get("/sign-in/openid")
def leave(access: OfAccess, then: Next = "/") -> Response:
    """Go to the provider."""
    if access.provider is None:
        raise InputError("this Cleanroom has no OpenID Connect provider", hint="openid.issuer names it")
    visit = secrets.token_urlsafe(32)
    answer = RedirectResponse(access.provider.leave(visit, local(then)), 303)
    access.set_cookie(answer, "visit", visit, _VISIT)
    return answer


@router.get("/sign-in/openid/return")
def come_back(request: Request, access: OfAccess, visitor: Asking) -> Response:
    """Let somebody in who comes from the provider."""
    if access.provider is None:
        raise InputError("this Cleanroom has no OpenID Connect provider", hint="openid.issuer names it")
    visit = request.cookies.get(access.cookie("visit"), "")[:200]
    person, then = access.provider.come_back(visit, request.query_params)
    may_begin = access.settings.text("openid.accounts") == "yes"
    account = accounts.from_provider(
        access.database, access.provider.issuer, person.subject, person.called, may_begin=may_begin
    )
    if account is None:
        detail = {"why": "no account", "address": visitor.address}
        called = person.called[:100]
        audit.record(access.database, called, "sign in", "the web status", detail=detail, allowed=False)
        raise SignInFailed(
            f"{called} has no account here", hint=f"cleanroom account add NAME --openid {person.subject[:100]}"
        )
    return let_in(access, visitor, account, local(then), access.provider.name)


def _form(
    request: Request,
    access: Access,
    render: Render,
    *,
    then: str,
    name: str = "",
    problem: InputError | None = None,
    status: int = 200,
) -> Response:
    """The form with a token that belongs to the browser's cookie, which is made where there is none."""
    visitor = visitors.of(request)
    fresh = None if visitor.secret else secrets.token_urlsafe(32)
    shown = visitor if fresh is None else Visitor(None, fresh, visitor.address)
    answer = render(
        "sign_in.html",
        status=status,
        headers={"Cache-Control": "no-store"},
        token=shown.form_token,
        next=then,
        name=name,
        problem=problem,
        provider=access.provider,
        nobody=not accounts.any_there(access.database),
    )
    if fresh is not None:
        access.set_cookie(answer, "visit", fresh, _VISIT)
    return answer


def let_in(access: Access, visitor: Visitor, account: Account, then: str, how: str) -> Response:
    """A new session; the one before, which somebody else may have given to the browser, ends."""
    if visitor.holder is not None and visitor.secret is not None:
        sessions.end(access.database, visitor.secret)
    secret = sessions.begin(access.database, account.id, visitor.address, access.ages)
    detail = {"by": how, "address": visitor.address}
    audit.record(access.database, account.name, "sign in", "the web status", detail=detail)
    answer = RedirectResponse(then, 303)
    access.set_cookie(answer, "session", secret, access.ages.age)
    access.drop_cookie(answer, "visit")
    return answer

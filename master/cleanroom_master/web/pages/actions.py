"""What is to be done, and why? A form for each action, and what became of what the publisher was asked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import RedirectResponse, Response

from cleanroom_base.errors import CleanroomError, InputError, ProductError
from cleanroom_db import audit, gates, generations, releases, requests, services, sessions
from cleanroom_db.connection import Database
from cleanroom_db.releases import Release, UnknownRelease
from cleanroom_master import actions, asking_back
from cleanroom_master.actions import NotAllowed, Overtaken, Wish
from cleanroom_master.permissions import ACTIONS, Action, may, needed
from cleanroom_master.web.forms import Form, Sent
from cleanroom_master.web.pages.signing_in import Asking, OfAccess
from cleanroom_master.web.site import Record
from cleanroom_master.web.templating import Render, release_address
from cleanroom_master.web.text import path
from cleanroom_master.web.visitors import Access, SignInNeeded, Visitor

router = APIRouter(include_in_schema=False)

_WAIVED_FOR = timedelta(days=30)
_ABOUT = {
    "retry": "What did not pass is built again, in clean guests.",
    "hold": "It is kept from being published until somebody approves it.",
    "approve": "It goes on, if all other gates hold.",
    "waive": "It is judged without one of its gates, until a time.",
    "promote": "The same bytes go into a further channel, if the gates of that channel hold. Nothing is built again.",
    "withdraw": "It is taken out for good: neither a rollback nor a later release brings it back.",
    "drain": "What runs on it ends; new work goes to other hosts, or waits.",
    "resume": "It takes the work that waits.",
    "rollback": "What an earlier generation had is published again, by apt and yum together, as a new generation.",
}
Identifier = Annotated[int, Path(ge=1, lt=2**63)]


@router.get("/actions/rollback/{generation}")
def ask_rollback(generation: Identifier, access: OfAccess, visitor: Asking, render: Render) -> Response:
    """The form for going back to a generation, with what that would change."""
    action = ACTIONS["rollback"]
    _require(visitor, action, None)
    return _rollback_form(access.database, render, action, generation, Form({}))


@router.post("/actions/rollback/{generation}")
def roll_back(generation: Identifier, access: OfAccess, visitor: Asking, render: Render, form: Sent) -> Response:
    """Have the publisher go back."""
    _limit(access, visitor)
    try:
        asked = actions.roll_back(access.database, visitor.holder, generation, _wish(form))
    except (InputError, ProductError) as error:
        if isinstance(error, NotAllowed):
            raise
        return _rollback_form(access.database, render, ACTIONS["rollback"], generation, form, error)
    return RedirectResponse(f"/requests/{asked}", 303)


@router.get("/actions/{word}/{release_id}")
def ask(
    word: str, release_id: Identifier, access: OfAccess, record: Record, visitor: Asking, render: Render
) -> Response:
    """The form for doing something to a release."""
    action, release = _of_release(word), releases.get(record, release_id)
    _require(visitor, action, release.product)
    return _release_form(access.database, render, action, release, Form({}))


@router.post("/actions/{word}/{release_id}")
def act(
    word: str,
    release_id: Identifier,
    access: OfAccess,
    record: Record,
    visitor: Asking,
    render: Render,
    form: Sent,
) -> Response:
    """Do something to a release; where that cannot be, the form comes back with the reason and what was typed."""
    action = _of_release(word)
    _limit(access, visitor)
    _require_there(access, record, visitor, action, release_id)
    try:
        asked = actions.act(access.database, access.settings, visitor.holder, action, release_id, _wish(form))
    except (InputError, ProductError) as error:
        if isinstance(error, NotAllowed):
            raise
        release = releases.get(access.database, release_id)
        return _release_form(access.database, render, action, release, form, error)
    if asked is not None:
        return RedirectResponse(f"/requests/{asked}", 303)
    release = releases.get(access.database, release_id)
    return RedirectResponse(f"{release_address(release.product, release.ref)}?done={action.word}", 303)


@router.get("/hosts/{name}/{word}")
def ask_host(name: str, word: str, access: OfAccess, visitor: Asking, render: Render) -> Response:
    """The form for having a host take work, or none."""
    action = _of_host(word)
    _require(visitor, action, None)
    return _host_form(access.database, render, action, name, Form({}))


@router.post("/hosts/{name}/{word}")
def change_host(name: str, word: str, access: OfAccess, visitor: Asking, render: Render, form: Sent) -> Response:
    """Have a host take work, or none."""
    action = _of_host(word)
    _limit(access, visitor)
    try:
        actions.change_host(access.database, visitor.holder, action, name, _wish(form))
    except InputError as error:
        if isinstance(error, NotAllowed):
            raise
        return _host_form(access.database, render, action, name, form, error)
    return RedirectResponse(f"/hosts?done={action.word}", 303)


@router.get("/requests/{number}")
def request_page(number: Identifier, record: Record, render: Render) -> Response:
    """What became of what the publisher was asked."""
    found = requests.get(record, number)
    release = None if found.release_id is None else releases.get(record, found.release_id)
    return render("request.html", asked=found, release=release)


def _limit(access: Access, visitor: Visitor) -> None:
    """Nobody in particular is refused, which stands in the audit log, but does not fill it. Raises TooManyAttempts."""
    if visitor.holder is None:
        sessions.attempt(access.database, f"action from {visitor.address}", visitor.address)


def _require_there(access: Access, record: Database, visitor: Visitor, action: Action, release_id: int) -> None:
    """What somebody may not read is not there, which stands in the audit log. Raises UnknownRelease."""
    try:
        releases.get(record, release_id)
    except UnknownRelease:
        detail = {"why": "not there, or not to be read", "address": visitor.address}
        audit.record(access.database, visitor.name, action.name, f"release {release_id}", detail=detail, allowed=False)
        raise


def _of_release(word: str) -> Action:
    action = ACTIONS.get(word)
    if action is None or action.everything:
        raise InputError(f"there is no action {word[:100]!r}")
    return action


def _of_host(word: str) -> Action:
    if word not in ("drain", "resume"):
        raise InputError(f"there is no action {word[:100]!r}")
    return ACTIONS[word]


def _require(visitor: Visitor, action: Action, product: str | None) -> None:
    """Whoever may not do something is not shown its form. Raises SignInNeeded and NotAllowed."""
    if visitor.holder is None:
        raise SignInNeeded
    if not may(visitor.holder, action, product):
        raise NotAllowed(f"{action.name} needs {needed(action, product)}", hint="an administrator can grant it")


def _wish(form: Form) -> Wish:
    return Wish(
        reason=form.text("reason"),
        seen=form.raw("seen")[:200],
        gate=form.text("gate")[:200],
        expires_at=_day(form.text("expires")),
        channel=form.text("channel")[:100],
        forced=form.raw("force") == "yes",
    )


def _day(text: str) -> datetime | None:
    """The end of a day in UTC. Raises InputError."""
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
    except (ValueError, OverflowError):
        raise InputError(f"a day is written 2030-01-31, not {text[:100]!r}") from None


def _release_form(
    database: Database,
    render: Render,
    action: Action,
    release: Release,
    form: Form,
    error: CleanroomError | None = None,
) -> Response:
    with database.transaction() as cursor:
        release = releases.get(database, release.id)
        there = generations.channels_of(database, release.id)
        choices = list(gates.to_waive(cursor, release.id)) if action.word == "waive" else []
        seen = actions.standing(cursor, release)
    fixed = asking_back.fixes(there) if action.word == "withdraw" else []
    return _form(
        render,
        action,
        form,
        error,
        release=release,
        address=f"/actions/{action.word}/{release.id}",
        standing=seen,
        gates=choices,
        until=(datetime.now(UTC) + _WAIVED_FOR).date().isoformat(),
        channels=sorted(one.channel for one in there) if action.word == "withdraw" else [],
        promotes=action.word == "promote",
        fixed=fixed,
        back=release_address(release.product, release.ref),
    )


def _rollback_form(
    database: Database,
    render: Render,
    action: Action,
    generation: int,
    form: Form,
    error: CleanroomError | None = None,
) -> Response:
    with database.transaction() as cursor:
        current = generations.current(database)
        if current is None:
            raise InputError("nothing is published yet")
        plan = asking_back.plan_rollback(database, current.number, generation)
        seen = actions.repository_standing(cursor, current.number)
    return _form(
        render,
        action,
        form,
        error,
        generation=generation,
        address=f"/actions/{action.word}/{generation}",
        current=current.number,
        standing=seen,
        change=plan.difference,
        fixed=asking_back.fixes(plan.difference.releases_removed),
        back="/repository",
    )


def _host_form(
    database: Database, render: Render, action: Action, name: str, form: Form, error: CleanroomError | None = None
) -> Response:
    host = services.host(database, name)
    address = f"/hosts/{path(name)}/{action.word}"
    return _form(render, action, form, error, host=host, address=address, standing=host.state, back="/hosts")


def _form(render: Render, action: Action, form: Form, error: CleanroomError | None, **about: Any) -> Response:
    status = 200 if error is None else 409 if isinstance(error, Overtaken) else 400
    nothing: Mapping[str, Any] = {
        **dict.fromkeys(("release", "generation", "change", "host")),
        **{name: [] for name in ("gates", "channels", "fixed")},
        "promotes": False,
    }
    return render(
        "action.html",
        status=status,
        headers={"Cache-Control": "no-store"},
        action=action,
        explanation=_ABOUT[action.word],
        problem=error,
        sent=form,
        **{**nothing, **about},
    )

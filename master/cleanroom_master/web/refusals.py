"""What is refused, as pages: who has to sign in is led there, and comes back to where he wanted to go."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response

from cleanroom_base.errors import InputError
from cleanroom_db.sessions import WINDOW, TooManyAttempts
from cleanroom_db.tokens import TokenRefused
from cleanroom_master.actions import NotAllowed
from cleanroom_master.web.forms import NotFromHere, TooLarge
from cleanroom_master.web.openid import SignInFailed
from cleanroom_master.web.templating import Pages
from cleanroom_master.web.visitors import SignInNeeded

_STATUS = {
    NotAllowed: (403, "That is not yours to do"),
    NotFromHere: (403, "The form is not valid any more"),
    SignInFailed: (403, "You are not signed in"),
    TokenRefused: (401, "The token is not valid"),
    TooManyAttempts: (429, "Too many attempts failed"),
    TooLarge: (413, "That is too much"),
}


def register(application: FastAPI, pages: Pages) -> None:
    """Have every refusal of the application become a page."""

    def page(request: Request, error: InputError, status: int, title: str) -> Response:
        headers = {"Cache-Control": "no-store"}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if status == 429:
            headers["Retry-After"] = str(int(WINDOW))
        return pages.response(
            request, "error.html", status=status, headers=headers, title=title, why=f"{error.message}.",
            hint=error.hint or "", problems=error.problems, again=0,
        )  # fmt: skip

    def refused(request: Request, error: InputError) -> Response:
        return page(request, error, *_STATUS[type(error)])

    def unknown(request: Request, error: SignInNeeded) -> Response:
        accepted = request.headers.get("accept", "*/*")
        if request.method not in ("GET", "HEAD") or not any(kind in accepted for kind in ("text/html", "*/*")):
            return page(request, error, 401, "You are not signed in")
        then = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?next={quote(then[:2000], safe='')}", 303, {"Cache-Control": "no-store"})

    for kind in _STATUS:
        application.add_exception_handler(kind, refused)  # type: ignore[arg-type]
    application.add_exception_handler(SignInNeeded, unknown)  # type: ignore[arg-type]

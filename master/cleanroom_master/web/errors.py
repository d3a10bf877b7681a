"""What goes wrong, as pages in our words: what happened, why, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from cleanroom_base.errors import InfrastructureError, InputError, Problem
from cleanroom_db.connection import DatabaseAway, DatabaseBroken, DatabaseBusy, DatabaseRefused
from cleanroom_db.releases import UnknownRelease
from cleanroom_master.web.headers import SECURITY
from cleanroom_master.web.templating import Pages

# A page that could not be made asks for itself again after so many seconds.
_AGAIN = 5
_SAID = {
    HTTPStatus.NOT_FOUND: ("There is no such page", "The address is wrong, or what it named is not there any more."),
    HTTPStatus.METHOD_NOT_ALLOWED: ("That cannot be done here", "This address is for reading."),
}


class BadRequest(InputError):
    """The address asks for something that cannot be."""


def register(application: FastAPI, pages: Pages) -> None:
    """Have every error of the application become a page."""

    def page(
        request: Request,
        status: int,
        title: str,
        why: str,
        hint: str = "",
        problems: Iterable[Problem] = (),
        again: int = 0,
    ) -> Response:
        headers = {"Cache-Control": "no-store"}
        if again:
            headers |= {"Retry-After": str(again), "Refresh": str(again)}
        return pages.response(
            request, "error.html", status=status, headers=headers, title=title, why=why, hint=hint,
            problems=list(problems), again=again,
        )  # fmt: skip

    @application.exception_handler(HTTPException)
    def routed(request: Request, error: HTTPException) -> Response:
        title, why = _SAID.get(HTTPStatus(error.status_code), (HTTPStatus(error.status_code).phrase, error.detail))
        return page(request, error.status_code, title, why)

    @application.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> Response:
        problems = [Problem(str(one["loc"][-1])[:100], str(one["msg"])) for one in error.errors()]
        return page(
            request, 400, "The address is not valid", "It asks for something that cannot be.", problems=problems
        )

    @application.exception_handler(BadRequest)
    def bad(request: Request, error: BadRequest) -> Response:
        return page(request, 400, "The address is not valid", f"{error.message}.", error.hint or "", error.problems)

    @application.exception_handler(InputError)
    def unknown(request: Request, error: InputError) -> Response:
        # What is asked for by its address is not there; what is sent is not taken.
        missing = request.method in ("GET", "HEAD") or isinstance(error, UnknownRelease)
        status, title = (404, "Not found") if missing else (400, "That cannot be done")
        return page(request, status, title, f"{error.message}.", error.hint or "", error.problems)

    @application.exception_handler(InfrastructureError)
    def away(request: Request, error: InfrastructureError) -> Response:
        return page(request, 503, *_of_infrastructure(error), again=_AGAIN)

    @application.exception_handler(Exception)
    def broken(request: Request, _: Exception) -> Response:
        why = "This is a mistake in Cleanroom; the log of the service web has the details."
        answer = page(request, 500, "This page could not be made", why, "cleanroom status")
        # This one answers outside of all layers.
        answer.headers.update(SECURITY)
        return answer


def _of_infrastructure(error: InfrastructureError) -> tuple[str, str, str]:
    """The title, the reason and the hint; a reader is told nothing of addresses and accounts."""
    hint = "Whoever runs this Cleanroom finds more in: cleanroom status, cleanroom doctor"
    match error:
        case DatabaseAway():
            return (
                "The database is away",
                "Nothing is lost: what runs goes on, and this page comes back by itself.",
                hint,
            )
        case DatabaseBusy():
            return "The database is busy", "It could not answer in time. This page tries again by itself.", hint
        case DatabaseRefused() | DatabaseBroken():
            return "The database refuses this service", "Its schema or its rights do not fit this version.", hint
        case _:
            return "Something is away", "This page comes back by itself.", hint

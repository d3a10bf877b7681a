"""What goes wrong, as programs read it. Source: RFC 9457, problem details for HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_db.connection import DatabaseAway
from cleanroom_master.web.errors import BadRequest

MEDIA_TYPE = "application/problem+json"
_AGAIN = "5"
_LONGEST = 300


class Place(BaseModel):
    """One thing that is wrong with a request, and where."""

    place: str
    message: str


class Problem(BaseModel):
    """What went wrong, why, and what to do."""

    type: str
    title: str
    status: int
    detail: str
    hint: str | None
    problems: list[Place]


# The answers that operations can give beside what they are for.
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": HTTPStatus(status).phrase}
    for status in (400, 401, 403, 404, 405, 408, 413, 422, 429, 500, 503)
}


class Refused(Exception):
    """A request is not answered as it would like. `close`: nothing more is read of what it sends."""

    def __init__(self, status: int, title: str, detail: str, *, hint: str = "", close: bool = False) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail, self.hint, self.close = status, title, detail, hint, close


def answer(
    status: int,
    title: str,
    detail: str,
    *,
    hint: str | None = None,
    problems: Sequence[Place] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem as an answer."""
    problem = Problem(
        type="about:blank", title=title, status=status, detail=detail, hint=hint or None, problems=list(problems)
    )
    further = {"Cache-Control": "no-store", **(headers or {})}
    return JSONResponse(problem.model_dump(), status, further, media_type=MEDIA_TYPE)


def register(application: FastAPI) -> None:
    """Have every error of an application become a problem."""

    @application.exception_handler(Refused)
    def refused(_: Request, error: Refused) -> Response:
        headers = {"Connection": "close"} if error.close else {}
        if error.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return answer(error.status, error.title, error.detail, hint=error.hint, headers=headers)

    @application.exception_handler(HTTPException)
    def routed(_: Request, error: HTTPException) -> Response:
        phrase = HTTPStatus(error.status_code).phrase
        return answer(error.status_code, phrase, f"{error.detail}.", headers=error.headers)

    @application.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> Response:
        problems = [
            Place(place=".".join(str(part) for part in one["loc"])[:_LONGEST], message=str(one["msg"])[:_LONGEST])
            for one in error.errors()[:100]
        ]
        return answer(422, "The request is not valid", "It asks for something that cannot be.", problems=problems)

    @application.exception_handler(BadRequest)
    def bad(_: Request, error: BadRequest) -> Response:
        return answer(422, "The request is not valid", f"{error.message}.", hint=error.hint, problems=_places(error))

    @application.exception_handler(InputError)
    def unknown(_: Request, error: InputError) -> Response:
        return answer(404, "Not found", f"{error.message}.", hint=error.hint, problems=_places(error))

    @application.exception_handler(InfrastructureError)
    def away(_: Request, error: InfrastructureError) -> Response:
        what = "The database is away" if isinstance(error, DatabaseAway) else "Something is away"
        detail = "Nothing is lost; ask again."
        return answer(503, what, detail, hint="cleanroom status", headers={"Retry-After": _AGAIN})

    @application.exception_handler(Exception)
    def broken(_: Request, __: Exception) -> Response:
        detail = "This is a mistake in Cleanroom; the log of the service web has the details."
        return answer(500, "This could not be answered", detail, hint="cleanroom status")


def _places(error: InputError) -> list[Place]:
    return [Place(place=one.place, message=one.message) for one in error.problems]

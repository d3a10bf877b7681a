"""Forms that people send: small, from a page of ours, by the one to whom the page was given."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from anyio import to_thread
from fastapi import Depends, Request

from cleanroom_base.errors import InputError
from cleanroom_db import audit
from cleanroom_master.web import visitors
from cleanroom_master.web.visitors import Access, Visitor

_LARGEST = 64 << 10
_FIELDS = 32
_KIND = "application/x-www-form-urlencoded"


class TooLarge(InputError):
    """What was sent is larger than any form of ours."""


class NotFromHere(InputError):
    """The form does not come from a page of this visitor."""


@dataclass(frozen=True)
class Form:
    """What was sent; a field that is not there is empty."""

    values: Mapping[str, str]

    def text(self, name: str) -> str:
        """What a field says, without spaces around it."""
        return self.values.get(name, "").strip()

    def raw(self, name: str) -> str:
        """What a field says, as it was typed."""
        return self.values.get(name, "")


def local(address: str) -> str:
    """An address of ours to go on to; where it leads elsewhere, the first page."""
    # Browsers take a backslash for a slash, and leave out what cannot be printed.
    ours = address.startswith("/") and not address.startswith("//") and "\\" not in address and address.isprintable()
    return address if ours and len(address) <= 2000 else "/"


async def _form(request: Request) -> Form:
    access: Access | None = request.app.state.site.access
    if access is None:
        raise InputError("nobody signs in here")
    visitor = visitors.of(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _KIND:
        raise InputError(f"a form is sent as {_KIND}")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _LARGEST:
            raise TooLarge
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS)
    except ValueError as error:
        raise InputError(f"the form cannot be read: {error}") from None
    form = Form(dict(pairs))
    if not _is_from_here(request, access, visitor, form):
        if visitor.holder is not None:
            await to_thread.run_sync(_note, access, visitor, request.url.path)
        raise NotFromHere(hint="load the page again, and send it from there")
    return form


def _is_from_here(request: Request, access: Access, visitor: Visitor, form: Form) -> bool:
    """Whether a form was sent from a page that this visitor got; a program with a token has no pages."""
    if visitor.holder is not None and visitor.holder.token is not None:
        return True
    origin = request.headers.get("origin")
    if origin is None:
        ours = request.headers.get("sec-fetch-site", "none") in ("none", "same-origin")
    else:
        parts = urlsplit(access.settings.web_url)
        ours = origin in (f"{parts.scheme}://{parts.netloc}", f"{request.url.scheme}://{request.headers.get('host')}")
    return ours and bool(visitor.form_token) and hmac.compare_digest(visitor.form_token, form.raw("token"))


def _note(access: Access, visitor: Visitor, path: str) -> None:
    detail = {"why": "not from a page of ours", "address": visitor.address}
    audit.record(access.database, visitor.name, "form", path[:300], detail=detail, allowed=False)


# What a handler asks for that takes a form: `def sign_in(form: Sent)`.
Sent = Annotated[Form, Depends(_form)]

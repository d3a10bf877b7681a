"""The one place where templates are rendered: everything is escaped, and harmless (see `text`)."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from cleanroom_master.permissions import ACTIONS
from cleanroom_master.web import text, visitors
from cleanroom_master.web.live import News
from cleanroom_master.web.site import Site

PACKAGE = "cleanroom_master.web"
# What the navigation leads to: the words and the address.
NAVIGATION = (
    ("Releases", "/"),
    ("Queue", "/queue"),
    ("Products", "/products"),
    ("Repository", "/repository"),
    ("Hosts and targets", "/hosts"),
    ("Trends", "/trends"),
)
# How states look: words that mean alike for a reader have one colour and one shape, see static/style.css.
_LOOKS = {
    "good": "passed published holds done ready running-well found good",
    "bad": "failed regressed fails refused bad failing",
    "busy": "building running claimed starting",
    "calm": "waiting waits pending ahead recorded draining stopped",
    "hold": "held infrastructure waived undecided spoiled leaving",
    "mixed": "flaky",
    "off": "cancelled skipped withdrawn withdrawal rollback retention removed ignored drained gone",
}
# Stands, while a page is made, for the number of the news; nobody knows it who writes what is shown.
_SEEN = secrets.token_hex(16)
_LOOK_OF = {word: look for look, words in _LOOKS.items() for word in words.split()}


class _Environment(Environment):
    """Looks into mappings first, of which most of what pages show consists: a tenth of a page's time less."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute` in a template: what a mapping has of that name, or an attribute."""
        if type(obj) is dict and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


class Pages:
    """The templates of a site, rendered."""

    def __init__(self, site: Site) -> None:
        self._environment = _Environment(
            loader=PackageLoader(PACKAGE, "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=text.shown,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            time=text.time, duration=text.duration, size=text.size, path=text.path, lines=text.lines, ref=text.ref
        )
        self._environment.globals.update(
            navigation=NAVIGATION,
            site=site,
            static=_static_addresses(),
            look=look,
            release_address=release_address,
            visitor=visitors.of,
            actions=ACTIONS,
            actions_of=actions_of,
        )

    def load(self) -> None:
        """Have all templates ready, so that nobody waits for that and processes that are forked share them."""
        for name in self._environment.list_templates():
            self._environment.get_template(name)

    def response(
        self,
        request: Request,
        template: str,
        *,
        seen: int = 0,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **values: Any,
    ) -> Response:
        """A page; one that the reader has already is not sent again. `seen`: with which news its rows were read."""
        page = self._environment.get_template(template).render(request=request, seen=_SEEN, **values)
        # What it says is the same whatever other news there were.
        parts = page.encode().split(_SEEN.encode())
        tag = f'"{hashlib.sha256(b"".join(parts)).hexdigest()[:32]}"'
        body = str(seen).encode().join(parts)
        # Asked for again each time, so that what is shown is what is so.
        kept = "no-cache" if visitors.of(request).holder is None else "private, no-cache"
        further = {"Cache-Control": kept, "Vary": "Cookie, Authorization", "ETag": tag, **(headers or {})}
        if status == 200 and tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=further)
        return HTMLResponse(body, status, further)


def look(word: object) -> str:
    """How a state is shown: one of the few looks that the style sheet has."""
    return _LOOK_OF.get(str(word), "calm")


def actions_of(release: Mapping[str, Any]) -> list[str]:
    """The words of what can be done to a release (as `release_view` has it) in its state, whoever may do it."""
    channels = {one["channel"] for one in release["published"]}
    fitting = {
        "approve": release["state"] == "held",
        "hold": release["state"] in ("waiting", "building", "held"),
        "retry": release["state"] in ("failed", "held", "cancelled"),
        "waive": release["state"] in ("waiting", "building", "failed", "held"),
        "promote": "testing" in channels and "stable" not in channels,
        "withdraw": bool(channels) or release["state"] == "passed",
    }
    return [word for word, fits in fitting.items() if fits]


def release_address(product: str, ref: str) -> str:
    """Where the page of a release is."""
    return f"/release/{text.path(product)}/{text.path(ref)}"


def _static_addresses() -> dict[str, str]:
    """The static files with addresses that change with them, so that they may be kept for ever."""
    files = resources.files(PACKAGE).joinpath("static").iterdir()
    return {file.name: f"/static/{file.name}?v={hashlib.sha256(file.read_bytes()).hexdigest()[:16]}" for file in files}


async def _renderer(request: Request) -> Callable[..., Response]:
    pages: Pages = request.app.state.pages
    news: News = request.app.state.news
    seen = news.number()

    def render(template: str, **values: Any) -> Response:
        return pages.response(request, template, seen=seen, **values)

    return render


# What a handler answers with: `return render("releases.html", matrix=matrix)`.
Render = Annotated[Callable[..., Response], Depends(_renderer)]

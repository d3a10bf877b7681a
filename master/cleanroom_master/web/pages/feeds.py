"""What others show of us: a feed and a badge of a product, and the measures for monitoring."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Annotated
from xml.etree import ElementTree

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.exceptions import HTTPException

from cleanroom_db import listings
from cleanroom_db import products as record_of
from cleanroom_db.listings import Change, Listed
from cleanroom_db.states import ReleaseState
from cleanroom_master.web import text
from cleanroom_master.web.api.conditional import Conditional
from cleanroom_master.web.site import OfSite, Part, Record
from cleanroom_master.web.templating import look, release_address

router = APIRouter(include_in_schema=False, route_class=Conditional)

_ENTRIES = 50
_ATOM = "http://www.w3.org/2005/Atom"
_SVG = "http://www.w3.org/2000/svg"
# Badges stand on other sites' pages, which ask for them each time that somebody reads; a minute is no long time.
_BADGE_HEADERS = {"Cache-Control": "public, max-age=60", "Cross-Origin-Resource-Policy": "cross-origin"}
_COLOURS = {
    "good": "#1a7f37",
    "bad": "#b42318",
    "busy": "#175cd3",
    "hold": "#93600b",
    "mixed": "#93600b",
    "calm": "#57606a",
    "off": "#57606a",
}
# Widths of characters in units of the badge, and the room beside a word.
_WIDE, _NARROW, _ROOM, _HEIGHT = 13.0, 7.0, 12.0, 20
_LONGEST = 40


@router.get("/product/{name}/feed.atom")
def feed(name: str, record: Record, site: OfSite) -> Response:
    """The latest states of a product's releases, as an Atom feed. Source: RFC 4287."""
    found = record_of.get(record, name)
    changes = listings.changes(record, found.name, _ENTRIES)
    here = f"{site.web_url}/product/{text.path(found.name)}"
    root = ElementTree.Element("feed", xmlns=_ATOM)
    _add(root, "id", f"{here}/feed.atom")
    _add(root, "title", f"{found.name}: releases")
    _add(root, "updated", _at(changes[0].at if changes else found.created_at))
    ElementTree.SubElement(root, "link", rel="self", type="application/atom+xml", href=f"{here}/feed.atom")
    ElementTree.SubElement(root, "link", rel="alternate", type="text/html", href=here)
    _add(ElementTree.SubElement(root, "author"), "name", "Cleanroom")
    for one in changes:
        _entry(root, one, site.web_url)
    return Response(_xml(root), media_type="application/atom+xml")


@router.get("/product/{name}/badge.svg")
def badge(name: str, record: Record, channel: Annotated[str, Query(max_length=32)] = "") -> Response:
    """How the newest release of a product stands, or the newest published one of a channel."""
    found = record_of.get(record, name)
    newest = listings.releases(
        record,
        product=found.name,
        channel=channel or None,
        state=ReleaseState.PUBLISHED if channel else None,
        limit=1,
    )
    label = f"{found.name} {channel}".strip()
    return Response(_badge(label, newest[0] if newest else None), media_type="image/svg+xml", headers=_BADGE_HEADERS)


@router.get("/metrics")
def metrics(request: Request, part: Part) -> Response:
    """What Prometheus asks for, who may read everything."""
    if part is not None:
        raise HTTPException(404)
    body: bytes = request.app.state.meter.text()
    return Response(body, media_type=CONTENT_TYPE_PLAIN_0_0_4, headers={"Cache-Control": "no-store"})


def _entry(root: ElementTree.Element, one: Change, web_url: str) -> None:
    address = web_url + release_address(one.product, one.ref)
    entry = ElementTree.SubElement(root, "entry")
    # A state is an entry of its own, whatever becomes of the release later.
    _add(entry, "id", f"{address}#change-{one.id}")
    _add(entry, "title", f"{one.product} {one.version or one.ref} is {one.state}")
    _add(entry, "updated", _at(one.at))
    ElementTree.SubElement(entry, "link", rel="alternate", type="text/html", href=address)
    ElementTree.SubElement(entry, "category", term=str(one.state))
    _add(entry, "summary", one.why or f"on its way into {one.channel}")


def _badge(label: str, newest: Listed | None) -> bytes:
    state = "none" if newest is None else str(newest.state)
    version = "" if newest is None else newest.version or newest.ref
    words = [_harmless(_cut(label)), _harmless(_cut(f"{version} {state}".strip()))]
    left, right = (_ROOM + sum(map(_width, word)) for word in words)
    size = {"width": f"{left + right:g}", "height": str(_HEIGHT)}
    root = ElementTree.Element("svg", {"xmlns": _SVG, "role": "img", "aria-label": ": ".join(words), **size})
    _add(root, "title", ": ".join(words))
    ElementTree.SubElement(root, "rect", {**size, "rx": "3", "fill": "#444c56"})
    colour = _COLOURS[look(state)]
    ElementTree.SubElement(root, "rect", {**size, "x": f"{left:g}", "width": f"{right:g}", "rx": "3", "fill": colour})
    style = {
        "fill": "#fff",
        "text-anchor": "middle",
        "font-family": "Verdana,DejaVu Sans,sans-serif",
        "font-size": "11",
    }
    group = ElementTree.SubElement(root, "g", style)
    for word, middle in zip(words, (left / 2, left + right / 2), strict=True):
        shown = ElementTree.SubElement(group, "text", {"x": f"{middle:g}", "y": "14"})
        shown.text = word
    return _xml(root)


def _add(parent: ElementTree.Element, name: str, value: str) -> None:
    ElementTree.SubElement(parent, name).text = _harmless(value)


def _harmless(value: str) -> str:
    """Text that XML can hold and that steers nothing; markup in it is escaped when it is written."""
    return str(text.shown(value))


def _cut(word: str) -> str:
    return word if len(word) <= _LONGEST else f"{word[: _LONGEST - 1]}…"


def _width(character: str) -> float:
    return _WIDE if unicodedata.east_asian_width(character) in "WF" else _NARROW


def _at(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _xml(root: ElementTree.Element) -> bytes:
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written

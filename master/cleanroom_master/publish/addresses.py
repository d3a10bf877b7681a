"""The addresses of what is published: which of them never change their content, and which are read first.

Web servers say by this what may be kept, and whoever fills a mirror brings files in this order: then a client finds
everything that something names, at any moment.
"""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import PurePath

_CONTENT = re.compile(
    r"(apt|yum/[^/]+/[^/]+)/pool/.*|yum/[^/]+/[^/]+/states/.*|.*/by-hash/.*|.*/repodata/[0-9a-f]{64}-[^/]*"
    r"|listing/[0-9a-f]{64}\.json"
)
# In the order in which they are brought: of those that are one statement, the one that clients read last comes first.
_ENTRIES = (
    *("Release", "Release.gpg", "InRelease", "repomd.xml.asc", "repomd.xml", "mirrorlist"),
    *("index.html", "generation.json"),
)
_ENTRY = re.compile(r"apt/dists/[^/]+/[^/]+|yum/[^/]+/[^/]+/(repodata/)?[^/]+|[^/]+")

_TYPES = {
    ".asc": "text/plain; charset=us-ascii",
    ".css": "text/css; charset=utf-8",
    ".deb": "application/vnd.debian.binary-package",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".rpm": "application/x-rpm",
    ".xml": "application/xml",
    "mirrorlist": "text/plain; charset=utf-8",
}
_OTHER_TYPE = "application/octet-stream"


class Stage(IntEnum):
    """When a file is brought to a mirror. What is gone is removed after all of these.

    `CONTENT`: what never changes under its address; `INDEXES`: what is named by an entry, or by nobody; `ENTRIES`: what
    clients read first.
    """

    CONTENT = 0
    INDEXES = 1
    ENTRIES = 2


def stage(place: str) -> Stage:
    """The stage of a file, by its path below a generation."""
    if immutable(place):
        return Stage.CONTENT
    name = place.rpartition("/")[2]
    return Stage.ENTRIES if name in _ENTRIES and _ENTRY.fullmatch(place) else Stage.INDEXES


def order(place: str) -> tuple[Stage, int, str]:
    """By what files are sorted that are brought one after the other."""
    name = place.rpartition("/")[2]
    return stage(place), _ENTRIES.index(name) if stage(place) is Stage.ENTRIES else 0, place


def immutable(place: str) -> bool:
    """Whether an address never changes its content: whoever has it may keep it for ever."""
    return _CONTENT.fullmatch(place) is not None


def caching(place: str) -> str:
    """The header Cache-Control of an address."""
    return "public, max-age=31536000, immutable" if immutable(place) else "no-cache"


def media_type(place: str) -> str:
    """The header Content-Type of an address."""
    path = PurePath(place)
    return _TYPES.get(path.suffix or path.name, _OTHER_TYPE)

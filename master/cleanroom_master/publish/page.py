"""The consumer's page: how to add the repository, to copy, and what is in it.

Plain HTML, complete without scripts. It is built into the generation, so it changes with what it describes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from importlib import resources
from itertools import groupby
from operator import attrgetter

import jinja2

from cleanroom_master.publish import storage
from cleanroom_master.publish.generation import Draft, root_of
from cleanroom_master.publish.package import Package, Stream
from cleanroom_master.publish.signing import Key

_FILES = resources.files("cleanroom_master.publish")


def write(draft: Draft, url: str, public_key: bytes, key: Key) -> None:
    """Write `index.html` and `style.css` into the draft."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((_FILES / "page.html").read_text(encoding="utf-8"))
    new = draft.generation
    html = template.render(
        generation=new,
        key=key,
        key_sha256=hashlib.sha256(public_key).hexdigest(),
        images=_by_image(new.streams),
        packages=_newest_first(new.packages),
        root_of=root_of,
        slug=re.sub(r"[^a-z0-9]+", "-", new.origin.lower()).strip("-") or "cleanroom",
        url=url,
    )
    moment = new.at.timestamp()
    storage.write(draft.root / "index.html", html.encode(), modified=moment)
    storage.write(draft.root / "style.css", (_FILES / "style.css").read_bytes(), modified=moment)


def _by_image(streams: Iterable[Stream]) -> list[tuple[str, list[Stream]]]:
    image = attrgetter("image")
    return [(name, list(group)) for name, group in groupby(sorted(streams, key=image), key=image)]


def _newest_first(packages: Iterable[Package]) -> list[Package]:
    """By name, then by version downwards as a reader would sort it (numbers as numbers)."""
    downwards = sorted(packages, key=lambda package: _numbers_as_numbers(package.version), reverse=True)
    return sorted(downwards, key=attrgetter("name", "image", "channel", "format", "architecture"))


def _numbers_as_numbers(version: str) -> list[tuple[int, str]]:
    return [(int(digits or 0), text) for digits, text in re.findall(r"(\d*)(\D*)", version)]

"""The consumer's page: how to add the repository, to copy, and what is in it.

Plain HTML, complete without scripts. It is built into the generation, so it changes with what it describes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from itertools import groupby
from operator import attrgetter

import jinja2

from cleanroom_master.publish.attachments import BILL, PROVENANCE, Attachments
from cleanroom_master.publish.generation import Draft, Generation, root_of
from cleanroom_master.publish.package import Package, Stream
from cleanroom_master.publish.signing import Signer

_FILES = resources.files("cleanroom_master.publish")
# So many packages are on the page; of more, the latest.
_SHOWN = 400
_SHOWN_OF_A_PART = 20


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A package that was taken out, for the page: whoever has it installed shall know."""

    name: str
    version: str
    architecture: str
    channel: str
    image: str
    at: datetime
    reason: str


def write(
    draft: Draft, url: str, signer: Signer, withdrawn: Sequence[Withdrawn], attachments: Attachments
) -> dict[str, str]:
    """Write `index.html`, `provenance.html` and `style.css` into the draft; returns their sha256."""
    new = draft.generation
    html = _template("page.html").render(
        generation=new,
        keys=signer.keys,
        retired=bool(signer.retired_keys()),
        key_sha256=hashlib.sha256(signer.public_key()).hexdigest(),
        images=_by_image(new.streams),
        packages=_newest_first(_latest(new)),
        count=sum(run.packages for part in new.parts.values() for run in part.runs),
        withdrawn=withdrawn,
        attached=lambda package: bool(attachments.of(package.sha256)),
        provenance=PROVENANCE,
        bill=BILL,
        root_of=root_of,
        slug=slug(new.origin),
        url=url,
    )
    explained = _template("provenance.html").render(
        generation=new, url=url, provenance=PROVENANCE, bill=BILL, keys=signer.keys
    )
    files = {
        "index.html": html.encode(),
        "provenance.html": explained.encode(),
        "style.css": (_FILES / "style.css").read_bytes(),
    }
    for place, content in files.items():
        draft.write(place, content)
    return {place: hashlib.sha256(content).hexdigest() for place, content in files.items()}


def slug(origin: str) -> str:
    """The site's name as a part of file names."""
    return re.sub(r"[^a-z0-9]+", "-", origin.lower()).strip("-") or "cleanroom"


@cache
def _template(name: str) -> jinja2.Template:
    """A page's template: to compile it takes longer than to fill it in."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string((_FILES / name).read_text(encoding="utf-8"))


def _latest(new: Generation) -> Iterable[Package]:
    """All packages where they are not too many for a page, else those of each part that came last."""
    counts = {name: sum(run.packages for run in part.runs) for name, part in new.parts.items()}
    share = _SHOWN if sum(counts.values()) <= _SHOWN else max(_SHOWN // len(counts), _SHOWN_OF_A_PART)
    for part in new.parts.values():
        found: list[Package] = []
        for run in reversed(part.runs):
            if len(found) >= share:
                break
            found = [*new.listed(run), *found]
        yield from found[-share:]


def _by_image(streams: Iterable[Stream]) -> list[tuple[str, list[Stream]]]:
    image = attrgetter("image")
    return [(name, list(group)) for name, group in groupby(sorted(streams, key=image), key=image)]


def _newest_first(packages: Iterable[Package]) -> list[Package]:
    """By name, then by version downwards as a reader would sort it (numbers as numbers)."""
    downwards = sorted(packages, key=lambda package: _numbers_as_numbers(package.version), reverse=True)
    return sorted(downwards, key=attrgetter("name", "image", "channel", "format", "architecture"))


def _numbers_as_numbers(version: str) -> list[tuple[int, str]]:
    return [(int(digits or 0), text) for digits, text in re.findall(r"(\d*)(\D*)", version)]

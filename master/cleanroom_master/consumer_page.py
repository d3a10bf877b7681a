"""The consumer's page as a consumer reads it: the blocks to copy, and the places where the page says to put them."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_master import channel
from cleanroom_recipes.model import Builder, Target
from cleanroom_recipes.request import ConsumerPage, Repository

_COPIED = ("pre", "code")


class _Blocks(HTMLParser):
    """The texts of the page's elements that have an id and are to be copied."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.blocks: dict[str, str] = {}
        self._open: tuple[str, str] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        identity = dict(attrs).get("id")
        if tag in _COPIED and identity:
            self._open = tag, identity
            self.blocks[identity] = ""

    def handle_endtag(self, tag: str) -> None:
        if self._open is not None and tag == self._open[0]:
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.blocks[self._open[1]] += data


def read(html: str, url: str, channel_name: str, target: Target) -> ConsumerPage:
    """What a page tells consumers of a channel on an image, by the client of the target's format.

    `url` is the repository's address as it stands in the page. Raises InfrastructureError where the page does not tell.
    """
    blocks = _Blocks(html).blocks
    by_dnf = target.format is Builder.RPM
    name = f"{'yum' if by_dnf else 'apt'}-{channel_name}-{target.image}"
    wanted = {
        "key": f"{name}-key" if not by_dnf else None,
        "source": f"{name}-repo" if by_dnf else f"{name}-sources",
        "place": f"{name}-place",
    }
    missing = [block for block in wanted.values() if block is not None and block not in blocks]
    if missing:
        raise InfrastructureError(f"the consumer's page has nothing to copy for {', '.join(missing)}")
    copied = {word: "" if block is None else blocks[block].lstrip("\n") for word, block in wanted.items()}
    return ConsumerPage(url=url, **copied)


def published(directory: Path, url: str, channel_name: str, target: Target) -> Repository:
    """What the repository in `directory` tells consumers now. Raises InfrastructureError where it tells nothing."""
    there = channel.published(directory, channel_name, target.image)
    if there is None:
        raise InfrastructureError(f"{channel_name} publishes nothing for {target.image} any more")
    try:
        html = (directory / "current" / "index.html").read_text(encoding="utf-8")
    except OSError as error:
        raise InfrastructureError(f"the consumer's page cannot be read: {error.strerror}") from error
    return replace(there, page=read(html, url, channel_name, target))

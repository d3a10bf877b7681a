"""What a reader finds in a page, as a browser would take it apart."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from starlette.testclient import TestClient

# What has no end of its own.
_EMPTY = {"meta", "link", "input", "br", "rect", "path", "hr", "img", "circle", "line", "polyline"}


class Document(HTMLParser):
    """A page: its text, its elements with attributes, and whether each was closed in its place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], f"not closed: {self._open}"

    @property
    def text(self) -> str:
        """All that a person reads, with single spaces."""
        return re.sub(r"\s+", " ", "".join(self.parts))

    def all(self, name: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of one name."""
        return [attributes for tag, attributes in self.elements if tag == name]

    def links(self) -> list[str]:
        """Where it leads."""
        return [link for one in self.all("a") if (link := one.get("href"))]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        expected = self._open.pop() if self._open else None
        assert expected == tag, f"</{tag}> closes <{expected}>"

    def handle_data(self, data: str) -> None:
        self.parts.append(data)
        # So that neighbours do not become one word.
        self.parts.append(" ")


def read(web: TestClient, address: str, status: int = 200) -> Document:
    """The page at an address, which must be whole and carry nothing that the policy for its content forbids."""
    answer = web.get(address)
    assert answer.status_code == status, (answer.status_code, answer.text[-2000:])
    document = Document(answer.text)
    for tag, attributes in document.elements:
        assert tag != "style", "a style within the page"
        assert not any(name == "style" or name.startswith("on") for name in attributes), (tag, attributes)
    assert [script.get("type") for script in document.all("script")] == ["module"]
    assert len(document.all("main")) == 1
    ids = [attributes["id"] for _, attributes in document.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), f"an id twice: {sorted(one or '' for one in ids if ids.count(one) > 1)}"
    return document

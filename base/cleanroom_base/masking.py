"""Takes secrets out of text that others will read: log records, and what is sent to whoever helps.

Two ways, which complete each other: `masked` knows what secrets look like (passwords in addresses, keys, tokens
beside their names), `Secrets` knows those of this site, and finds them in every form in which programs print them.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus, unquote, urlsplit

MASK = "(masked)"
# Shorter ones would be found everywhere; nobody should have them.
_SHORTEST = 4
# What base64 makes of a part of a secret says too little to be looked for where it is shorter.
_SHORTEST_PART = 6

_SECRET_NAME = r"[\w.-]{0,40}(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|credential|\bpin)[\w-]{0,20}"  # noqa: S105 - a name
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY[A-Z ]{0,20}-----.*?(?:-----END [A-Z -]{0,60}-----|\Z)", re.S),
        MASK,
    ),
    # In addresses: a password behind a user's name; in those of the web also a name alone, which may be a token.
    (re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s/?#:@\"'<>]{0,200}:)[^\s/?#\"'<>]{1,500}@"), rf"\1{MASK}@"),
    (re.compile(r"(\bhttps?://)[^\s/?#:@\"'<>]{1,500}@", re.I), rf"\1{MASK}@"),
    (re.compile(rf"([?&;]{_SECRET_NAME}=)[^\s&#;\"'<>]+", re.I), rf"\1{MASK}"),
    (re.compile(r"(\b(?:Bearer|Basic|Digest|Token) )(?=[^\s\d]*\d)[A-Za-z0-9._~+/=:-]{8,}", re.I), rf"\1{MASK}"),
    # Cleanroom's own tokens (cleanroom_db.tokens).
    (re.compile(r"\bcleanroom_[A-Za-z0-9_-]{40,}"), MASK),
    (re.compile(r"((?:\bauthorization|\bcookie|\bset-cookie)\b[\"']?\s*[:=]\s*)[^\n]+", re.I), rf"\1{MASK}"),
    (re.compile(rf"(\b{_SECRET_NAME}[\"']?\s*[:=]\s*\")(?!\(set\))(?:[^\"\\]|\\.)*", re.I), rf"\1{MASK}"),
    (re.compile(rf"(\b{_SECRET_NAME}[\"']?\s*[:=]\s*')[^']*", re.I), rf"\1{MASK}"),
    (re.compile(rf"(\b{_SECRET_NAME}\s*[:=]\s*)[^\s\"'&,;()]+", re.I), rf"\1{MASK}"),
)
# What any of the patterns needs: most text has none of it, and is not looked at further.
_HINT = re.compile(
    r"PRIVATE KEY|://|passw|passphrase|secret|token|api.?key|credential|pin|bearer|cleanroom_|basic|digest"
    r"|authorization|cookie",
    re.I,
)


def masked(text: str) -> str:
    """The same text without what looks like a secret."""
    if not _HINT.search(text):
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def in_address(address: str) -> list[str]:
    """What is secret in an address: user and password, as written and decoded, and the values of its query."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return [address]
    found = [parts.password or ""]
    if parts.scheme in ("http", "https") and not parts.password:
        found.append(parts.username or "")
    found += [pair.partition("=")[2] for pair in parts.query.split("&")]
    return [form for value in found if value for form in dict.fromkeys((value, unquote(value)))]


class Secrets:
    """Values that must not be read by others. Those of fewer than four characters are not looked for in text."""

    def __init__(self, values: Iterable[str]) -> None:
        plain = {form for value in values if len(value) >= _SHORTEST for form in _forms(value)}
        # And each of these within JSON, as messages are in logs.
        forms = plain | {json.dumps(form, ensure_ascii=only)[1:-1] for form in plain for only in (True, False)}
        longest_first = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def masked(self, text: str) -> str:
        """The same text without them, and without what looks like a secret."""
        known = self._pattern.sub(MASK, text) if self._pattern else text
        return masked(known)

    def among(self, text: str) -> bool:
        """Whether one of them is in a text."""
        return self._pattern is not None and self._pattern.search(text) is not None


def _forms(value: str) -> Iterator[str]:
    """A value as programs write it."""
    encoded = value.encode(errors="surrogateescape")
    yield from (value, quote(encoded, safe=""), quote_plus(encoded), quote(encoded), html.escape(value))
    escaped = json.dumps(value), json.dumps(value, ensure_ascii=False), repr(value), repr(encoded)[1:]
    yield from (*(text[1:-1] for text in escaped), encoded.hex())
    # Within other text that is written in base64 as a whole it begins at one of three places.
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + encoded).decode()
        begin, end = (0, 2, 3)[before], (before + len(encoded)) * 8 // 6
        part = whole[begin:end]
        if len(part) >= _SHORTEST_PART:
            yield part
            yield part.replace("+", "-").replace("/", "_")

"""How values are shown: text from outside made harmless, times, durations and sizes in words."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from urllib.parse import quote

from markupsafe import Markup, escape

# Joiners make one emoji of several and are needed in some scripts; they move nothing.
_JOINERS = "\u200c\u200d"
# Control, format, unassigned and private characters, halves of characters, and separators that break lines.
_TIME = '<time datetime="%sT%sZ" title="%s UTC">%s UTC</time>'
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_STEERING = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def shown(value: object) -> object:
    """A value as a template shows it: in text, what would steer the reader's screen is shown as an escape."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return "" if value is None else value
    if value.isprintable():
        return value
    return "".join(c if _harmless(c) else c.encode("unicode_escape").decode("ascii") for c in value)


def _harmless(character: str) -> bool:
    return character in "\n\t" or character in _JOINERS or unicodedata.category(character) not in _STEERING


def time(value: datetime | str | None) -> Markup:
    """A time in UTC; the reader's own zone is the browser's to know, see page.js."""
    if value is None:
        return Markup("-")
    at = (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(UTC)
    exact = at.isoformat(" ", "milliseconds")
    # Nothing in it needs escaping, and pages have hundreds.
    return Markup(_TIME % (exact[:10], exact[11:23], exact[:19], exact[:16]))  # noqa: S704


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 0.04 s, 5.2 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds is None:
        return "-"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, name, below, below_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit} {name}" + (f" {rest} {below_name}" if rest else "")
    return f"{whole} s"


def size(count: int | None) -> str:
    """Bytes with a binary unit."""
    if count is None:
        return "-"
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def ref(name: str) -> str:
    """A tag as it is, of a commit its beginning."""
    return name[:12] if _COMMIT.fullmatch(name) else name


def path(name: str) -> str:
    """A name from outside as a part of an address."""
    return quote(name, safe="")


def lines(value: str) -> Markup:
    """Text with its line breaks."""
    return Markup("<br>").join(escape(shown(line)) for line in value.split("\n"))

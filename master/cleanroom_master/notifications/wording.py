"""What a message says to people. Names come out of repositories and guests: what would steer a screen is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NAMES = 5
_LONGEST = 300


def sentence(content: Mapping[str, Any]) -> str:
    """A message in one line."""
    match content["event"]:
        case "regressed":
            found = content["comparison"]
            what = f"{found['regressed']} tests" if found["regressed"] else ", ".join(found["phases"]) or "its build"
            since = f" since {found['against']}" if found["against"] else ""
            told = f"{_name(content)} regressed{since}: {what}"
        case "fixed":
            told = f"{_name(content)} is fixed: nothing is regressed in {content['channel']} any more"
        case "published":
            told = f"{_name(content)} is published in {content['channel']}, generation {content['generation']}"
        case word:
            releases = [f"{_name(one)} ({one['channel']})" for one in content["removed"] or content["restored"]]
            more = f" and {len(releases) - _NAMES} more" if len(releases) > _NAMES else ""
            did = "withdrew" if word == "withdrawn" else "rolled back"
            told = f"{content['actor']} {did} {', '.join(releases[:_NAMES])}{more}: {content['reason']}"
    return harmless(told)


def text(content: Mapping[str, Any]) -> str:
    """A message in some lines, the first of which is the sentence."""
    lines = [sentence(content), ""]
    if content.get("why"):
        lines.append(harmless(content["why"]))
    lines += [f"  {harmless(name)}" for name in (content.get("comparison") or {}).get("names", ())]
    for title, key in (("Gone", "removed"), ("Back", "restored")):
        lines += [harmless(f"{title}: {_name(one)} ({one['channel']}) {one['why']}") for one in content.get(key, ())]
    return "\n".join([*lines, "", content["url"]])


def harmless(value: str, longest: int = _LONGEST) -> str:
    """Text on one line that steers nothing, of bearable length."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in value[:longest])
    return shown + ("..." if len(value) > longest else "")


def _name(one: Mapping[str, Any]) -> str:
    return f"{one['product']} {one['version'] or one['ref']}"

"""Whether a release says that it mends a hole in security.

Nobody else says it in a form that a program can read: a CVE's number in the tag's message or in the entry of
debian/changelog, or that entry's urgency (which dpkg copies into the .changes file, deb-changes(5)).
"""

from __future__ import annotations

import re

_CVE = re.compile(r"\bCVE-[0-9]{4}-[0-9]{4,12}\b")
_URGENCY = re.compile(r"^Urgency:[ \t]*(high|critical|emergency)\b", re.IGNORECASE | re.MULTILINE)
_NAMED = 5


def evidence(message: str, changes: str = "") -> str | None:
    """By what a release says that it mends a hole, for people; None: it does not say so.

    `message` is the tag's, `changes` the text of a .changes file.
    """
    said = []
    found = list(dict.fromkeys(_CVE.findall(message) + _CVE.findall(changes)))
    if found:
        said.append(", ".join(found[:_NAMED]) + (", ..." if len(found) > _NAMED else ""))
    urgency = _URGENCY.search(changes)
    if urgency is not None:
        said.append(f"urgency {urgency[1].lower()}")
    return "; ".join(said) or None

"""Names of refs as they come from outside: bytes that may be anything git lets through."""

from __future__ import annotations

import hashlib

from cleanroom_db.ref_events import name_problem

LIMIT = 255
_KEPT = 200


def problem(name: bytes) -> str | None:
    """Why a ref of this name cannot become a release, or None."""
    try:
        return name_problem(name.decode("ascii"))
    except UnicodeDecodeError:
        return "the name has characters that are not ASCII"


def readable(name: bytes) -> str:
    """The name in a form that can be stored and shown: itself, or with `\\xNN` and cut short.

    Two different names stay different: git allows no backslash in a name, and a name cut short ends with its
    digest.
    """
    if problem(name) is None:
        return name.decode("ascii")
    if not name:
        return "(empty)"
    text = "".join(_escaped(byte) for byte in name)
    if text.startswith("-"):
        text = rf"\x2d{text[1:]}"
    if len(text) > LIMIT:
        text = f"{text[:_KEPT]}...{hashlib.sha256(name).hexdigest()[:32]}"
    return text


def _escaped(byte: int) -> str:
    return chr(byte) if 0x20 < byte < 0x7F and byte != 0x5C else rf"\x{byte:02x}"

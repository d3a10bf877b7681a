"""Debian control data: one paragraph, read strictly and written again.

The data comes out of a guest. A second paragraph, or a field that only a repository may set, would let a
package speak for others; so the reading here refuses what the lenient readers of such data let pass.
Source of the format: Debian Policy, chapter 5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cleanroom_base.errors import InputError

_FIELD = re.compile(r"([!\"$-,.-9;-~][!-9;-~]*):[ \t]*(.*)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def parse(content: bytes) -> dict[str, str]:
    """The fields of the only paragraph, in their order; a value keeps its continuation lines.

    Raises InputError.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"the control data is not UTF-8: {error}") from error
    if _CONTROL.search(text):
        raise InputError("the control data has control characters")
    fields: dict[str, str] = {}
    name = ""
    for line in text.rstrip("\n").split("\n"):
        if not line.strip():
            raise InputError("the control data has more than one paragraph")
        if line[0] in " \t":
            if not name:
                raise InputError("the control data starts with a continuation line")
            fields[name] += f"\n{line}"
            continue
        matched = _FIELD.fullmatch(line)
        if matched is None:
            raise InputError(f"the control data has a line that is no field: {line[:80]!r}")
        name = matched[1]
        if name.lower() in {other.lower() for other in fields}:
            raise InputError(f"the control data has the field {name} twice")
        fields[name] = matched[2]
    return fields


def write(fields: Mapping[str, str]) -> str:
    """A paragraph, without the empty line that ends it."""
    # A field whose value starts on the next line has no space after its colon.
    return "".join(f"{name}:{'' if value[:1] == chr(10) else ' '}{value}\n" for name, value in fields.items())

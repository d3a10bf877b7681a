"""SQL in named blocks: `-- name: NAME` starts a block in one of the files here, loaded once.

`-- name: NAME (prepared)` has a connection prepare it once, since planning it takes longer than doing it. That is for
what is asked often and with one good plan whatever the values: where a filter may be there or not (`IS NULL OR`), a
plan for all values is slow for each.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

_NAME = re.compile(r"^-- name: ([a-z_]+( \(prepared\))?)\n", re.MULTILINE)


class Prepared(str):
    """A statement that each connection prepares when it first runs it."""

    __slots__ = ()


@cache
def load(entity: str) -> dict[str, str]:
    """The blocks of `ENTITY.sql`, by name."""
    text = resources.files(__package__).joinpath(f"{entity}.sql").read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    return {
        name.partition(" ")[0]: Prepared(body.strip()) if prepared else body.strip()
        for name, prepared, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }

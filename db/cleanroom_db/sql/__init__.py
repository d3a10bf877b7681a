"""SQL in named blocks: `-- name: NAME` starts a block in one of the files here, loaded once."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

_NAME = re.compile(r"^-- name: ([a-z_]+)\n", re.MULTILINE)


@cache
def load(entity: str) -> dict[str, str]:
    """The blocks of `ENTITY.sql`, by name."""
    text = resources.files(__package__).joinpath(f"{entity}.sql").read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}

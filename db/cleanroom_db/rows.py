"""Rows as frozen dataclasses: one column a field, enums and arrays in their Python form."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any, Self

from cleanroom_db.connection import Row


@dataclasses.dataclass(frozen=True)
class Entity:
    """A row of a table, or of a view of some."""

    @classmethod
    def from_row(cls, row: Row) -> Self:
        """Make the entity from a row that has all of its columns; others are not looked at."""
        entity: Any = cls  # a hashable thing, which the type checker doubts of an abstract class
        return cls(**{name: convert(row[name]) for name, convert in _converters(entity)})


@cache
def _converters(entity: Any) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    hints = typing.get_type_hints(entity)
    return tuple((field.name, _converter(hints[field.name])) for field in dataclasses.fields(entity))


def _converter(hint: Any) -> Callable[[Any], Any]:
    """How a column's value becomes a field of this type. The driver has done the plain types."""
    if isinstance(hint, types.UnionType):
        inner = next(_converter(part) for part in hint.__args__ if part is not type(None))
        return lambda value: None if value is None else inner(value)
    if typing.get_origin(hint) is tuple:
        return tuple
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    return lambda value: value

"""Frozen dataclasses to plain JSON values and back, strictly.

What is read may come from a hostile place (a guest's output, a product's repository), so reading checks every
type, bound and length, refuses unknown and missing keys, and reports everything that is wrong at once, each
problem with its place. The dataclass is the schema: its annotations are all that is written down. A class
with a `parse` of its own (a target such as `debian-12/deb`) is text.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cleanroom_base.errors import InputError, Problem

T = TypeVar("T")

TEXT_LIMIT = 65_536
ITEM_LIMIT = 10_000
INTEGER_LIMIT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Text:
    """A bound on text: at most `most` characters and, if given, the whole of it matching `pattern`."""

    most: int = TEXT_LIMIT
    pattern: str | None = None
    like: str | None = None


@dataclass(frozen=True, slots=True)
class Between:
    """A bound on a number, both ends included."""

    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Items:
    """A bound on how many items a list or table has."""

    most: int = ITEM_LIMIT


def to_plain(value: object) -> Any:
    """The JSON form of a dataclass of this package: objects, lists, text, numbers, true, false, null."""
    if is_dataclass(value) and not isinstance(value, type):
        return (
            str(value)
            if hasattr(value, "parse")
            else {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
        )
    if isinstance(value, Mapping):
        return {str(key): to_plain(value[key]) for key in sorted(value)}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value) if isinstance(value, StrEnum | Path) else value


def from_plain(kind: type[T], value: object, *, what: str) -> T:
    """Read a dataclass of type `kind` from its JSON form; `what` names it in the error.

    Raises InputError with every problem and its place.
    """
    problems: list[Problem] = []
    result = collect(kind, value, problems)
    if result is None or problems:
        raise InputError(f"{what} is not valid", problems=problems)
    return result


def collect(kind: type[T], value: object, problems: list[Problem]) -> T | None:
    """As from_plain, but adds what is wrong to `problems` and then returns None."""
    return typing.cast("T | None", _read(kind, value, "", (), problems))


def unknown_key(place: str, key: str, known: Iterable[str]) -> Problem:
    """The problem of a key that nobody reads, with the key that was probably meant."""
    close = difflib.get_close_matches(key[:100], list(known), 1)
    return Problem(_join(place, key[:100]), f"unknown key; did you mean {close[0]}?" if close else "unknown key")


def dumps(value: object) -> bytes:
    """The one canonical line of JSON of a dataclass, without a line end."""
    plain = to_plain(value)
    return json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def loads(content: bytes, *, most: int, what: str) -> object:
    """Parse JSON that may be hostile: at most `most` bytes of UTF-8, no NaN, no doubled keys.

    Raises InputError.
    """
    if len(content) > most:
        raise InputError(f"{what} has {len(content)} bytes; at most {most} are allowed")
    try:
        return json.loads(content.decode(), parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} is not valid JSON: {error}") from error


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice")
    return table


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _read(kind: Any, value: object, place: str, bounds: tuple[object, ...], problems: list[Problem]) -> Any:
    """One value of the annotated type `kind`; on a problem, notes it and returns None."""
    origin = typing.get_origin(kind)
    if origin is Annotated:
        inner, *more = typing.get_args(kind)
        return _read(inner, value, place, (*more, *bounds), problems)
    if origin in (types.UnionType, typing.Union):
        (inner,) = [part for part in typing.get_args(kind) if part is not types.NoneType]
        return None if value is None else _read(inner, value, place, bounds, problems)
    try:
        return _read_one(kind, value, place, bounds, problems)
    except ValueError as error:
        problems.append(Problem(place, str(error)))
        return None


def _read_one(kind: Any, value: object, place: str, bounds: tuple[object, ...], problems: list[Problem]) -> Any:
    """One value of a type that is neither annotated nor optional. Raises ValueError."""
    origin = typing.get_origin(kind)
    if origin is tuple:
        return _read_list(typing.get_args(kind)[0], value, place, bounds, problems)
    if origin is Mapping:
        return _read_table(typing.get_args(kind), value, place, bounds, problems)
    if hasattr(kind, "parse"):
        return _read_parsed(kind, value)
    if is_dataclass(kind):
        return _read_object(typing.cast(type, kind), value, place, problems)
    scalar = _SCALARS.get(kind)
    return scalar(value, bounds) if scalar is not None else _read_word(kind, value)


def _read_list(
    kind: Any, value: object, place: str, bounds: tuple[object, ...], problems: list[Problem]
) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError("must be a list")
    _check_items(len(value), bounds)
    return tuple(_read(kind, item, f"{place}[{index}]", (), problems) for index, item in enumerate(value))


def _read_table(
    kinds: tuple[Any, ...], value: object, place: str, bounds: tuple[object, ...], problems: list[Problem]
) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be a table")
    _check_items(len(value), bounds)
    key_kind, value_kind = kinds
    table = {}
    for key in sorted(value):
        inside = _join(place, key[:100])
        _read(key_kind, key, inside, (), problems)
        table[key] = _read(value_kind, value[key], inside, (), problems)
    return table


def _read_parsed(kind: Any, value: object) -> Any:
    try:
        return kind.parse(_read_text(value, (Text(200),)))
    except InputError as error:
        raise ValueError(error.message) from error


def _check_items(count: int, bounds: tuple[object, ...]) -> None:
    most = next((bound.most for bound in bounds if isinstance(bound, Items)), ITEM_LIMIT)
    if count > most:
        raise ValueError(f"has {count} items; at most {most} are allowed")


def _read_object(kind: type, value: object, place: str, problems: list[Problem]) -> Any:
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    before = len(problems)
    known = {field.name: field for field in fields(kind)}
    for key in value:
        if key not in known:
            problems.append(unknown_key(place, str(key), known))
    found: dict[str, Any] = {}
    for name, field in known.items():
        if name in value:
            found[name] = _read(_hints(kind)[name], value[name], _join(place, name), (), problems)
        elif field.default is MISSING and field.default_factory is MISSING:
            problems.append(Problem(_join(place, name), "is missing"))
    return kind(**found) if len(problems) == before else None


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _read_text(value: object, bounds: tuple[object, ...]) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    bound = next((bound for bound in bounds if isinstance(bound, Text)), Text())
    if len(value) > bound.most:
        raise ValueError(f"has {len(value)} characters; at most {bound.most} are allowed")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("has a character that text cannot have")
    if bound.pattern is not None and re.fullmatch(bound.pattern, value) is None:
        raise ValueError(f"must be {bound.like or f'of the form {bound.pattern}'}")
    return value


def _check_number(value: float, bounds: tuple[object, ...], least: float, most: float) -> None:
    bound = next((bound for bound in bounds if isinstance(bound, Between)), Between(least, most))
    if not bound.least <= value <= bound.most:  # also refuses what is not a number
        raise ValueError(f"must be from {bound.least:.15g} to {bound.most:.15g}")


def _read_integer(value: object, bounds: tuple[object, ...]) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("must be a whole number")
    _check_number(value, bounds, -INTEGER_LIMIT, INTEGER_LIMIT)
    return value


def _read_number(value: object, bounds: tuple[object, ...]) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("must be a number")
    _check_number(value, bounds, -1e15, 1e15)
    return float(value)


def _read_truth(value: object, _bounds: tuple[object, ...]) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _read_time(value: object, _bounds: tuple[object, ...]) -> datetime:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) and len(value) < 40 else None
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise ValueError("must be a time of the form 2026-01-31T12:00:00Z")
    return time.astimezone(UTC)


def _read_path(value: object, bounds: tuple[object, ...]) -> Path:
    path = Path(_read_text(value, (*bounds, Text(4096))))
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


def _read_word(kind: type[StrEnum], value: object) -> StrEnum:
    try:
        return kind(str(value))
    except ValueError:
        raise ValueError(f"must be one of: {', '.join(kind)}") from None


_SCALARS: dict[Any, Any] = {
    str: _read_text,
    int: _read_integer,
    float: _read_number,
    bool: _read_truth,
    datetime: _read_time,
    Path: _read_path,
}

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
from collections.abc import Callable, Iterable, Mapping
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
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


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
    kind: Any = type(value)
    return _writer(kind)(value)


@functools.cache
def _writer(kind: Any) -> Callable[[Any], Any]:
    """How a value of one type is written: as with reading, asked once for a type and not for each of many values."""
    if is_dataclass(kind) and not hasattr(kind, "parse"):
        names = tuple(field.name for field in fields(kind))
        return lambda value: {name: to_plain(getattr(value, name)) for name in names}
    if issubclass(kind, Mapping):
        return lambda value: {str(key): to_plain(value[key]) for key in sorted(value)}
    if issubclass(kind, tuple):
        return lambda value: [to_plain(item) for item in value]
    if issubclass(kind, datetime):
        return lambda value: value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str if is_dataclass(kind) or issubclass(kind, StrEnum | Path) else _unchanged


def _unchanged(value: object) -> object:
    return value


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
    return typing.cast("T | None", _reader(typing.cast("Any", kind)).noting(value, "", problems))


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


@dataclass(frozen=True, slots=True)
class _Reader:
    """How a value of one type is read: made once for a type, since asking for annotations takes longest.

    `read` gets the value, its place and the list of problems. What is wrong with the value itself is raised as
    ValueError; what is wrong inside of it is noted with its place. What has no inside is read by `scalar` alone.
    """

    read: Callable[[object, str, list[Problem]], Any]
    scalar: Callable[[object], Any] | None = None

    def noting(self, value: object, place: str, problems: list[Problem]) -> Any:
        """Read a value; on a problem, note it and return None."""
        try:
            return self.read(value, place, problems)
        except ValueError as error:
            problems.append(Problem(place, str(error)))
            return None


@functools.cache
def _reader(kind: Any, bounds: tuple[object, ...] = ()) -> _Reader:
    """The reader of the annotated type `kind`."""
    origin = typing.get_origin(kind)
    if origin is Annotated:
        inner, *more = typing.get_args(kind)
        return _reader(inner, (*more, *bounds))
    if origin in (types.UnionType, typing.Union):
        (inner,) = [part for part in typing.get_args(kind) if part is not types.NoneType]
        return _optional(_reader(inner, bounds))
    if origin in (tuple, Mapping):
        most = next((bound.most for bound in bounds if isinstance(bound, Items)), ITEM_LIMIT)
        first, second = typing.get_args(kind)
        return _list_reader(_reader(first), most) if origin is tuple else _table_reader(first, second, most)
    if hasattr(kind, "parse"):
        return _scalar_reader(lambda value: _read_parsed(kind, value))
    if is_dataclass(kind):
        return _object_reader(typing.cast(type, kind))
    return _scalar_reader(_SCALARS[kind](bounds) if kind in _SCALARS else _word(kind))


def _scalar_reader(scalar: Callable[[object], Any]) -> _Reader:
    return _Reader(lambda value, _place, _problems: scalar(value), scalar)


def _optional(inner: _Reader) -> _Reader:
    if (scalar := inner.scalar) is not None:
        return _scalar_reader(lambda value: None if value is None else scalar(value))
    return _Reader(lambda value, place, problems: None if value is None else inner.read(value, place, problems))


def _list_reader(item: _Reader, most: int) -> _Reader:
    def read(value: object, place: str, problems: list[Problem]) -> Any:
        if not isinstance(value, list):
            raise ValueError("must be a list")
        _check_items(len(value), most)
        return tuple(item.noting(one, f"{place}[{index}]", problems) for index, one in enumerate(value))

    return _Reader(read)


def _table_reader(key_kind: Any, value_kind: Any, most: int) -> _Reader:
    key_reader, value_reader = _reader(key_kind), _reader(value_kind)

    def read(value: object, place: str, problems: list[Problem]) -> Any:
        if not isinstance(value, dict):
            raise ValueError("must be a table")
        _check_items(len(value), most)
        table = {}
        for key in sorted(value):
            inside = _join(place, key[:100])
            key_reader.noting(key, inside, problems)
            table[key] = value_reader.noting(value[key], inside, problems)
        return table

    return _Reader(read)


def _read_parsed(kind: Any, value: object) -> Any:
    try:
        return kind.parse(_PARSED_TEXT(value))
    except InputError as error:
        raise ValueError(error.message) from error


def _check_items(count: int, most: int) -> None:
    if count > most:
        raise ValueError(f"has {count} items; at most {most} are allowed")


def _object_reader(kind: type) -> _Reader:
    hints = typing.get_type_hints(kind, include_extras=True)
    readers = {field.name: _reader(hints[field.name]) for field in fields(kind)}
    required = [field.name for field in fields(kind) if field.default is field.default_factory is MISSING]

    def read(value: object, place: str, problems: list[Problem]) -> Any:
        if not isinstance(value, dict):
            raise ValueError("must be an object")
        before = len(problems)
        found: dict[str, Any] = {}
        for name, given in value.items():
            reader = readers.get(name)
            if reader is None:
                problems.append(unknown_key(place, str(name), readers))
                continue
            scalar = reader.scalar
            try:
                found[name] = scalar(given) if scalar else reader.read(given, _join(place, name), problems)
            except ValueError as error:
                problems.append(Problem(_join(place, name), str(error)))
        problems += [Problem(_join(place, name), "is missing") for name in required if name not in value]
        return kind(**found) if len(problems) == before else None

    return _Reader(read)


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _text(bounds: tuple[object, ...]) -> Callable[[object], str]:
    bound = next((bound for bound in bounds if isinstance(bound, Text)), Text())
    pattern = None if bound.pattern is None else re.compile(bound.pattern)
    like = bound.like or f"of the form {bound.pattern}"

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError("must be text")
        if len(value) > bound.most:
            raise ValueError(f"has {len(value)} characters; at most {bound.most} are allowed")
        if _NO_TEXT.search(value):
            raise ValueError("has a character that text cannot have")
        if pattern is not None and pattern.fullmatch(value) is None:
            raise ValueError(f"must be {like}")
        return value

    return read


def _check_number(value: float, bound: Between) -> None:
    if not bound.least <= value <= bound.most:  # also refuses what is not a number
        raise ValueError(f"must be from {bound.least:.15g} to {bound.most:.15g}")


def _integer(bounds: tuple[object, ...]) -> Callable[[object], int]:
    bound = next((bound for bound in bounds if isinstance(bound, Between)), Between(-INTEGER_LIMIT, INTEGER_LIMIT))

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("must be a whole number")
        _check_number(value, bound)
        return value

    return read


def _number(bounds: tuple[object, ...]) -> Callable[[object], float]:
    bound = next((bound for bound in bounds if isinstance(bound, Between)), Between(-1e15, 1e15))

    def read(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError("must be a number")
        _check_number(value, bound)
        return float(value)

    return read


def _read_truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _read_time(value: object) -> datetime:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) and len(value) < 40 else None
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise ValueError("must be a time of the form 2026-01-31T12:00:00Z")
    return time.astimezone(UTC)


def _path(bounds: tuple[object, ...]) -> Callable[[object], Path]:
    text = _text((*bounds, Text(4096)))

    def read(value: object) -> Path:
        path = Path(text(value))
        if not path.is_absolute():
            raise ValueError("must be an absolute path")
        return path

    return read


def _word(kind: type[StrEnum]) -> Callable[[object], StrEnum]:
    words = {word.value: word for word in kind}

    def read(value: object) -> StrEnum:
        word = words.get(value) if isinstance(value, str) else None
        if word is None:
            raise ValueError(f"must be one of: {', '.join(kind)}")
        return word

    return read


_PARSED_TEXT = _text((Text(200),))
_SCALARS: dict[Any, Callable[[tuple[object, ...]], Callable[[object], Any]]] = {
    str: _text,
    int: _integer,
    float: _number,
    bool: lambda _: _read_truth,
    datetime: lambda _: _read_time,
    Path: _path,
}

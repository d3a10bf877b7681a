"""The frame of the command line: how nouns and verbs are declared, and what a verb is given to work with."""

from __future__ import annotations

import argparse
import codecs
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from cleanroom_base import settings as site_settings
from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.log_records import printable
from cleanroom_base.settings import Settings
from cleanroom_db.connection import Database

# `printable` stands below all, for log records; here for all that print tables.
__all__ = ["Commands", "Context", "Handler", "Noun", "harmless", "plain", "printable", "read_file", "table"]

_DATABASE_WAIT = 5.0

# Colours, and the carriage returns with which terminals end lines. Source: ECMA-48, SGR.
_LEFT_OUT = re.compile(r"\x1b\[[0-9;]*m|\r+(?=\n)")
# What may be the beginning of those; no longer than they are in earnest.
_BEGUN = re.compile(r"(\x1b(\[[0-9;]{0,32})?|\r{1,32})\Z")

Handler = Callable[["Context", argparse.Namespace], int | None]


class _Parser(argparse.ArgumentParser):
    """argparse with our exit status for bad usage and the command's own help as the hint."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n  hint: {self.prog} --help\n")


class Commands:
    """Everything that can be said on the command line."""

    def __init__(self) -> None:
        self._parser = _Parser(
            prog="cleanroom",
            description="From a tag to a signed repository, every phase in a clean guest.",
            epilog="Example: cleanroom release show hello v2.10 --format json",
        )
        self._nouns = self._parser.add_subparsers(metavar="COMMAND", required=True)

    def noun(self, name: str, summary: str) -> Noun:
        """Add a noun; verbs are added to what is returned."""
        parser = self._nouns.add_parser(name, help=summary, description=summary)
        return Noun(parser.add_subparsers(metavar="VERB", required=True))

    def verb(self, name: str, handler: Handler, summary: str, example: str) -> argparse.ArgumentParser:
        """Add a command without a noun, such as `up`."""
        return _verb(self._nouns, name, handler, summary, example)

    @property
    def parser(self) -> argparse.ArgumentParser:
        """All of it, for whoever describes it."""
        return self._parser

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse a command line; exits with status 2 when it is not valid."""
        return self._parser.parse_args(words)


@dataclass(frozen=True)
class Noun:
    """A noun of the command line and its verbs."""

    _verbs: Any

    def noun(self, name: str, summary: str) -> Noun:
        """Add a noun of this noun, such as `key` of `repository`."""
        parser = self._verbs.add_parser(name, help=summary, description=summary)
        return Noun(parser.add_subparsers(metavar="VERB", required=True))

    def verb(
        self,
        name: str,
        handler: Handler,
        summary: str,
        example: str,
        *,
        about: str = "",
    ) -> argparse.ArgumentParser:
        """Add a verb; arguments are added to what is returned. `about` tells more, in its own help only."""
        parser = _verb(self._verbs, name, handler, summary, example)
        if about:
            parser.description = f"{summary}\n\n{about}"
        return parser


def _verb(group: Any, name: str, handler: Handler, summary: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"Example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--format", choices=["table", "json"], default="table", help="tables for people, JSON for scripts"
    )
    parser.set_defaults(handler=handler)
    return parser


@dataclass
class Context:
    """What a command works with: the settings, the database, and a way to answer."""

    arguments: argparse.Namespace
    _opened: list[Database] = field(default_factory=list)

    @cached_property
    def settings(self) -> Settings:
        """The site's settings. Raises InputError with every problem."""
        return site_settings.load()

    @cached_property
    def database(self) -> Database:
        """The database, with its owner's rights: whoever may read its password may do everything."""
        from cleanroom_db.cluster import database_url, is_private, status
        from cleanroom_db.roles import Role
        from cleanroom_master import supervisor

        settings = self.settings
        if is_private(settings) and not status(settings).running and supervisor.running(settings) is None:
            raise InfrastructureError(f"Cleanroom does not run on {settings.state}", hint="cleanroom up --detach")

        # A person waits for seconds, not for the minute that a process gives a database that restarts.
        return Database(database_url(self.settings, Role.OWNER), wait=_DATABASE_WAIT)

    @property
    def as_json(self) -> bool:
        """Whether a script is listening."""
        return bool(self.arguments.format == "json")

    def emit(self, data: object, text: str | None = None) -> None:
        """Answer: `data` as JSON, or `text` for people."""
        if self.as_json or text is None:
            sys.stdout.write(json.dumps(plain(data), indent=2, ensure_ascii=False) + "\n")
        elif text:
            sys.stdout.write(text.rstrip("\n") + "\n")
        sys.stdout.flush()

    def rows(self, rows: Sequence[Mapping[str, object]], columns: Sequence[str], empty: str) -> None:
        """Answer with a list: an array of objects as JSON, a table of `columns` for people, or `empty`."""
        self.emit(list(rows), table(rows, columns) if rows else empty)

    def progress(self, line: str) -> None:
        """Tell a person at a terminal what is going on."""
        if sys.stderr.isatty():
            sys.stderr.write(line + "\n")
            sys.stderr.flush()


def table(rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> str:
    """Rows as aligned text under their column names."""
    cells = [[column.replace("_", " ").upper() for column in columns]]
    cells += [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def harmless(chunks: Iterable[bytes]) -> Iterator[str]:
    """What somebody printed, a piece at a time, as text that cannot steer a terminal; lines stay lines, and colours
    are left out."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    kept = ""
    for chunk in chunks:
        text = _LEFT_OUT.sub("", kept + decoder.decode(chunk))
        # What the end of it is, is said by what follows.
        kept = found[0] if (found := _BEGUN.search(text)) else ""
        yield _shown(text.removesuffix(kept))
    yield _shown(kept)


def _shown(text: str) -> str:
    return "".join(c if c in "\n\t" else printable(c) for c in text)


def _cell(value: object) -> str:
    value = plain(value)
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, list | tuple):
        return " ".join(_cell(part) for part in value)
    return printable(str(value))


def plain(value: object) -> Any:
    """`value` as JSON knows it: times as ISO 8601 in UTC, enums as their values, paths as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Path):
        return str(value)
    return value


def read_file(path: str) -> str:
    """The text of a file named by a person, or of standard input for `-`. Raises InputError."""
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error

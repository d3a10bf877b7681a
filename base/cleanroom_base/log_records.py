"""What processes log: one record a line, JSON for programs, readable text on a terminal.

Every process of Cleanroom calls `begin` once and then uses the standard library's `logging`. Records go to standard
error, which the supervisor appends to the service's log file, Docker collects, and systemd's journal reads; the
journal is told how grave each is (sd-daemon(3)). What a record is about stands in fields of their own; the field
`correlation` is the same in all records, of all processes, that belong to one ref event.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Any, TextIO

from cleanroom_base.masking import masked

Value = str | int

# What a record can be about, in the order in which it is shown.
FIELDS = (
    "correlation",
    "product",
    "ref",
    "channel",
    "release",
    "trial",
    "build",
    "target",
    "attempt",
    "phase",
    "guest",
    "generation",
)
MESSAGE_LIMIT = 8192
ERROR_LIMIT = 16384
# No record of ours is longer: each character may become twelve of JSON.
LINE_LIMIT = 1 << 20
_VALUE_LIMIT = 512
# Journals and Docker may write so much before a record, when they show it.
_PREFIX_LIMIT = 300
# Source: sd-daemon(3), syslog(3).
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))
_NOTHING: Mapping[str, Value] = MappingProxyType({})
_BOUND: ContextVar[Mapping[str, Value]] = ContextVar("fields of log records", default=_NOTHING)


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was read."""

    at: datetime
    level: str
    service: str
    process: int
    message: str
    fields: Mapping[str, Value] = field(default_factory=dict)
    error: str | None = None

    @property
    def plain(self) -> dict[str, object]:
        """As JSON knows it."""
        error = {} if self.error is None else {"error": self.error}
        return {
            "time": _time(self.at),
            "level": self.level,
            "service": self.service,
            "process": self.process,
            "message": self.message,
            **self.fields,
            **error,
        }


def about(**fields: Value | None) -> dict[str, dict[str, Value]]:
    """The `extra` of a record that is about something; FIELDS names what it can be. None is left out."""
    unknown = fields.keys() - set(FIELDS)
    if unknown:
        raise TypeError(f"log records have no field {', '.join(sorted(unknown))}")
    return {"about": {name: value for name, value in fields.items() if value is not None}}


@contextlib.contextmanager
def bound(**fields: Value | None) -> Iterator[None]:
    """Have all records of this thread be about something, until the end of the block."""
    token = _BOUND.set({**_BOUND.get(), **about(**fields)["about"]})
    try:
        yield
    finally:
        _BOUND.reset(token)


def begin(service: str, stream: TextIO | None = None) -> None:
    """Have all that this process logs, and what it fails by, written to `stream` as records of `service`.

    By default that is standard error as it is now, whatever becomes of the file descriptor or `sys.stderr` later.
    """
    if stream is None:
        stream = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace")
    handler = _Handler(stream)
    handler.setFormatter(Readable(service) if stream.isatty() else JsonLines(service, journal=_is_journal(stream)))
    handler.addFilter(_says_something)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    # Each of their requests would be a record.
    for chatty in ("urllib3", "git", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    sys.excepthook = _uncaught
    threading.excepthook = lambda caught: _uncaught(caught.exc_type, caught.exc_value, caught.exc_traceback)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes records, and goes on when it cannot."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - the library's own
        """Leave out what the disk has no room for.

        The library says so on `sys.stderr`, of which Twisted makes a record again, which cannot be written either, and
        so on: whoever has something to log does nothing else any more.
        """
        if not isinstance(sys.exception(), OSError):
            with contextlib.suppress(OSError):
                traceback.print_exc(file=sys.__stderr__)


def _says_something(record: logging.LogRecord) -> bool:
    """Whether there is anything in a record: of some events Twisted makes a message without words."""
    return bool(record.exc_info) or str(record.msg) != ""


def begun() -> bool:
    """Whether this process writes records, or was forked from one that does."""
    return any(isinstance(handler.formatter, JsonLines | Readable) for handler in logging.getLogger().handlers)


class JsonLines(logging.Formatter):
    """A record as one line of JSON in ASCII: no character that was logged can end it or steer a terminal."""

    def __init__(self, service: str, *, journal: bool = False) -> None:
        super().__init__()
        self._service = service
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line = json.dumps(_taken(record, self._service).plain)
        return f"<{_priority(record.levelno)}>{line}" if self._journal else line


class Readable(logging.Formatter):
    """A record for a person at a terminal."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, service, message and fields in one line; an error in lines below."""
        return readable(_taken(record, self._service))


def readable(record: Record) -> str:
    """A record for a person: nothing in it steers a terminal."""
    fields = " ".join(f"{name}={record.fields[name]}" for name in FIELDS if name in record.fields)
    words = (f"{record.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}", record.level, f"{record.service}:", record.message)
    line = printable("  ".join([" ".join(words), *([f"({fields})"] if fields else [])]))
    below = "" if record.error is None else "".join(f"\n    {printable(one)}" for one in record.error.splitlines())
    return line + below


def read(line: str) -> Record | None:
    """Read one line of a log, or of what shows logs; None for what is no record: other programs print there, too."""
    begin = line.find("{", 0, _PREFIX_LIMIT)
    if begin < 0 or len(line) > LINE_LIMIT:
        return None
    text = line[begin:].strip()
    try:
        value = json.loads(text)
        return _record(value) if isinstance(value, dict) else None
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


def printable(value: str) -> str:
    """Text that cannot steer a terminal: control and direction characters are shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in value)


def _record(value: dict[str, Any]) -> Record:
    at = datetime.fromisoformat(value["time"])
    if at.tzinfo is None:
        raise ValueError("a time without its zone")
    level, service, message = (str(value[name]) for name in ("level", "service", "message"))
    fields = {name: value[name] for name in FIELDS if isinstance(value.get(name), str | int)}
    error = value.get("error")
    process = value["process"] if isinstance(value.get("process"), int) else 0
    return Record(at, level, service, process, message, fields, None if error is None else str(error))


def _taken(record: logging.LogRecord, service: str) -> Record:
    """What is written of a record of the library."""
    fields: dict[str, Value] = {**_BOUND.get(), **getattr(record, "about", {})}
    try:
        message = record.getMessage()
    except Exception as error:
        # Somebody else's words that do not fit their own form.
        message = f"{record.msg!r} with {record.args!r} cannot be shown: {error!r}"
    error_text = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
    return Record(
        datetime.fromtimestamp(record.created, UTC),
        record.levelname.lower(),
        service,
        record.process or 0,
        _bounded(masked(message), MESSAGE_LIMIT),
        {name: _value(fields[name]) for name in FIELDS if name in fields},
        None if error_text is None else _bounded(masked(error_text), ERROR_LIMIT),
    )


def _value(value: Value) -> Value:
    return value if isinstance(value, int) else _bounded(masked(str(value)), _VALUE_LIMIT)


def _bounded(text: str, most: int) -> str:
    """The text; of a longer one the beginning and the end, which says more of an error."""
    return text if len(text) <= most else f"{text[: most // 2]} [...] {text[-most // 2 :]}"


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _priority(level: int) -> int:
    return next(priority for least, priority in _PRIORITIES if level >= least)


def _is_journal(stream: TextIO) -> bool:
    """Whether systemd's journal reads a stream. Source: systemd.exec(5), JOURNAL_STREAM."""
    try:
        there = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"


def _uncaught(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    """What ends a process, or one of its threads, is a record like all else."""
    if error is None or issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("cleanroom").critical("%s: %s", kind.__name__, error, exc_info=(kind, error, where))

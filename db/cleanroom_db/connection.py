"""The one module that imports the driver: connections, transactions, and its errors turned into ours.

A process holds one `Database`. It keeps a few connections, gives one to each thread's transaction, and waits
for a server that is away, because a database that restarts must cost nobody a build.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NoReturn

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import psycopg2.extras

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_db.sql import Prepared

Row = Mapping[str, Any]

STATEMENT_TIMEOUT = 60.0
LOCK_TIMEOUT = 30.0
CONNECT_TIMEOUT = 10
_PAUSE = 0.2
_COPY_SPECIAL = re.compile(r"[\\\t\n\r]")
_COPY_PLAIN = frozenset({int, float})
_COPY_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_LONGEST_PAUSE = 2.0
_PASSWORD = re.compile(r"(//[^:/@]*:)[^@]*@")
_PARAMETER = re.compile(r"%\((\w+)\)s")
# What the server says of a prepared statement on tables that have changed since.
_OUTDATED = "cached plan must not change result type"
_REFUSED = re.compile(
    r"password authentication failed|no password supplied|authentication failed|no pg_hba\.conf entry"
    r'|role "[^"]*" does not exist|database "[^"]*" does not exist|permission denied|not permitted to log in'
    r"|invalid (URI|connection option|dsn)|could not translate host name|missing \"=\" after"
)


class DatabaseAway(InfrastructureError):
    """The database does not answer."""


class DatabaseBusy(InfrastructureError):
    """The database could not do this now (a time limit, a deadlock, a full disk)."""


class DatabaseChanged(DatabaseBusy):
    """The tables are not as they were when a statement was prepared; the next try finds them as they are."""


class DatabaseRefused(InfrastructureError):
    """The database does not let us in, or does not let us do this."""


class DatabaseBroken(InfrastructureError):
    """The database does not understand us: its schema and this program do not fit."""


class ConstraintViolated(InputError):
    """The record does not take this."""

    def __init__(self, message: str, *, constraint: str | None = None) -> None:
        """`constraint` is the name of the rule in the schema, where there is one."""
        self.constraint = constraint
        super().__init__(message)


class _Connection(psycopg2.extensions.connection):
    """A connection that knows which statements the server has prepared for it: how each is executed."""

    def __init__(self, dsn: str, **more: Any) -> None:
        super().__init__(dsn, **more)
        self.prepared: dict[str, str] = {}


class Cursor:
    """What a transaction does: SQL with parameters `%(name)s`, rows as mappings."""

    def __init__(self, cursor: psycopg2.extensions.cursor, connection: _Connection) -> None:
        self._cursor = cursor
        self._connection = connection

    def execute(self, statement: str, **parameters: object) -> int:
        """Run a statement and return how many rows it touched."""
        with _our_errors():
            if isinstance(statement, Prepared):
                statement = self._connection.prepared.get(statement) or self._prepare(statement)
            # Without parameters a percent sign is one.
            self._cursor.execute(statement, {name: _adapted(value) for name, value in parameters.items()} or None)
        return self._cursor.rowcount

    def rows(self, statement: str, **parameters: object) -> list[Row]:
        """Run a statement and return its rows."""
        self.execute(statement, **parameters)
        return self._as_mappings(self._cursor.fetchall())

    def row(self, statement: str, **parameters: object) -> Row | None:
        """Run a statement and return its first row, or None."""
        self.execute(statement, **parameters)
        row = self._cursor.fetchone()
        return None if row is None else self._as_mappings([row])[0]

    def value(self, statement: str, **parameters: object) -> Any:
        """Run a statement and return the first column of its first row, or None."""
        row = self.row(statement, **parameters)
        return None if row is None else next(iter(row.values()))

    def insert_many(self, statement: str, values: Sequence[Sequence[object]]) -> list[Row]:
        """Run `INSERT ... VALUES %s` for all `values` at once and return what it returns, if it does."""
        if not values:
            return []
        adapted = [tuple(_adapted(value) for value in row) for row in values]
        with _our_errors():
            returned = psycopg2.extras.execute_values(
                self._cursor, statement, adapted, page_size=len(adapted), fetch="RETURNING" in statement
            )
        return self._as_mappings(returned or [])

    def copy(self, statement: str, values: Iterable[Sequence[object]]) -> None:
        """Run `COPY ... FROM STDIN` with all `values`: quicker than INSERT, where nothing is returned."""
        lines = "".join("\t".join(_copied(value) for value in row) + "\n" for row in values)
        with _our_errors():
            self._cursor.copy_expert(statement, io.StringIO(lines))

    def _prepare(self, statement: Prepared) -> str:
        """Have the server prepare a statement, which outlives the transaction; gives what executes it."""
        names = list(dict.fromkeys(_PARAMETER.findall(statement)))
        body = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", statement)
        name = f"prepared_{len(self._connection.prepared)}"
        self._cursor.execute(f"PREPARE {name} AS {body.replace('%%', '%') if names else body}")
        values = ", ".join(f"%({one})s" for one in names)
        execute = self._connection.prepared[statement] = f"EXECUTE {name}" + (f" ({values})" if names else "")
        return execute

    def _as_mappings(self, rows: Sequence[Sequence[Any]]) -> list[Row]:
        # The driver's own cursors that give mappings take several times as long.
        names = [column.name for column in self._cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in rows]


class Database:
    """A PostgreSQL database, safe to share between threads."""

    def __init__(self, url: str, *, wait: float = 60.0, connections: int = 8) -> None:
        """`wait` is how many seconds to wait for a server that is away, and for a connection that is free."""
        self.url = url
        self._wait = wait
        self._free = threading.BoundedSemaphore(connections)
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()
        self._thread = threading.local()
        self._first: Callable[[Cursor], object] | None = None

    def beginning(self, first: Callable[[Cursor], object]) -> Database:
        """The same connections, where every transaction begins with something."""
        begun = copy.copy(self)
        begun._first = first
        return begun

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """A transaction: committed at its end, undone by any exception.

        Within another transaction of the same thread it is a part of that one, and undone alone.
        Raises DatabaseAway, DatabaseBusy, DatabaseRefused and ConstraintViolated.
        """
        outer: Cursor | None = getattr(self._thread, "cursor", None)
        if outer is not None:
            with _savepoint(outer):
                yield outer
            return
        with self._connection() as connection, _our_errors():
            try:
                with connection, connection.cursor() as cursor:
                    self._thread.cursor = Cursor(cursor, connection)
                    if self._first is not None:
                        self._first(self._thread.cursor)
                    yield self._thread.cursor
            except DatabaseChanged:
                # So it is with all that was prepared before.
                connection.close()
                self.close()
                raise
            finally:
                self._thread.cursor = None

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            # The list stays the one of all that share these connections.
            idle = self._idle.copy()
            self._idle.clear()
        for connection in idle:
            connection.close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[_Connection]:
        if not self._free.acquire(timeout=self._wait):
            raise DatabaseBusy("all of this process's database connections stay in use")
        try:
            connection = self._take() or connect(self.url, wait=self._wait)
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            self._free.release()

    def _take(self) -> _Connection | None:
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if _usable(connection):
                    return connection
                connection.close()
        return None

    def _give_back(self, connection: _Connection) -> None:
        if connection.closed or connection.info.transaction_status != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
            connection.close()
            return
        with self._lock:
            self._idle.append(connection)


class NotificationConnection:
    """A connection that only listens on some channels."""

    def __init__(self, url: str, channels: Iterable[str]) -> None:
        """Connect, once, and listen. Raises DatabaseAway and DatabaseRefused."""
        self._connection = connect(url, wait=0)
        self._connection.autocommit = True
        with _our_errors(), self._connection.cursor() as cursor:
            for channel in sorted(channels):
                cursor.execute(f'LISTEN "{channel}"')

    def fileno(self) -> int:
        """The socket, for select(2)."""
        return self._connection.fileno()

    def news(self) -> list[tuple[str, str]]:
        """Channel and text of each message that has come in. Raises DatabaseAway."""
        with _our_errors():
            self._connection.poll()
        messages = [(notify.channel, notify.payload or "") for notify in self._connection.notifies]
        self._connection.notifies.clear()
        return messages

    def check(self) -> None:
        """Ask the server whether it is there. Raises DatabaseAway."""
        with _our_errors(), self._connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def execute_alone(url: str, statement: str, *, wait: float = 60.0) -> None:
    """Run a statement that cannot be in a transaction, such as CREATE DATABASE."""
    connection = connect(url, wait=wait)
    try:
        connection.autocommit = True
        with _our_errors(), connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


def connect(url: str, *, wait: float = 60.0) -> _Connection:
    """Open a connection; the server may be away for `wait` seconds.

    Raises DatabaseAway and DatabaseRefused.
    """
    deadline = time.monotonic() + wait
    pause = _PAUSE
    while True:
        try:
            return _open(url)
        except (psycopg2.OperationalError, psycopg2.ProgrammingError) as error:
            text = str(error).strip()
            if _REFUSED.search(text):
                raise DatabaseRefused(
                    f"the database at {without_password(url)} refused the connection: {text}",
                    hint="check the user, the password and the database in the database settings",
                ) from error
            if time.monotonic() + pause > deadline:
                raise DatabaseAway(
                    f"the database at {without_password(url)} did not answer within {wait:g} s: {text}",
                    hint="'cleanroom status' shows whether it runs",
                ) from error
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def without_password(url: str) -> str:
    """A connection URL that may be shown."""
    return re.sub(r"(password=)[^&\s]*", r"\1***", _PASSWORD.sub(r"\1***@", url))


def literal(value: str) -> str:
    """A value as an SQL literal, for the few statements that take no parameters (CREATE ROLE)."""
    return str(psycopg2.extensions.QuotedString(value))


def plain(text: str) -> str:
    """Text from outside in the form that the database takes: no NUL, no half of a character."""
    return text.encode(errors="replace").decode().replace("\x00", "\ufffd")


def _open(url: str) -> _Connection:
    own = psycopg2.extensions.parse_dsn(url).get("options", "")
    limits = f"-c statement_timeout={STATEMENT_TIMEOUT:.0f}s -c lock_timeout={LOCK_TIMEOUT:.0f}s -c timezone=UTC"
    # What we have prepared is to be planned once; otherwise the server would often plan it anew for the values.
    limits += " -c plan_cache_mode=force_generic_plan"
    return psycopg2.connect(
        url,
        connection_factory=_Connection,
        options=f"{limits} {own}".strip(),
        connect_timeout=CONNECT_TIMEOUT,
        application_name="cleanroom",
        # A server that vanished without a word is noticed within about a minute (tcp(7)).
        keepalives_idle=30,
        keepalives_interval=10,
        keepalives_count=3,
    )


def _usable(connection: psycopg2.extensions.connection) -> bool:
    """Whether an idle connection still is one: a server that goes away makes its socket readable."""
    if connection.closed:
        return False
    readable, _, _ = select.select([connection.fileno()], [], [], 0)
    return not readable


@contextlib.contextmanager
def _savepoint(cursor: Cursor) -> Iterator[None]:
    cursor.execute("SAVEPOINT part")
    try:
        yield
    except BaseException:
        cursor.execute("ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part")
        raise
    cursor.execute("RELEASE SAVEPOINT part")


def _adapted(value: object) -> object:
    """Mappings go in as jsonb, tuples as arrays, enums as their words."""
    if isinstance(value, Mapping):
        return psycopg2.extras.Json(dict(value), dumps=lambda content: json.dumps(content, sort_keys=True))
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Enum):
        return value.value
    return value


def _copied(value: object) -> str:
    """A value in COPY's text format: no value is \\N, and what separates rows and columns is escaped."""
    if value is None:
        return "\\N"
    if type(value) in _COPY_PLAIN:
        return str(value)
    text = value if type(value) is str else str(_adapted(value))
    return text.translate(_COPY_ESCAPES) if _COPY_SPECIAL.search(text) else text


@contextlib.contextmanager
def _our_errors() -> Iterator[None]:
    """The seam: what the driver raises leaves as one of our errors."""
    try:
        yield
    except psycopg2.Error as error:
        _raise_ours(error)
    except (ValueError, UnicodeEncodeError) as error:
        # psycopg2 says it only in words: text with a NUL, or with half of a character.
        if "NUL" in str(error) or isinstance(error, UnicodeEncodeError):
            raise ConstraintViolated(f"the record does not take this text: {error}") from error
        raise


def _raise_ours(error: psycopg2.Error) -> NoReturn:
    state = error.pgcode or ""
    said = (error.diag.message_primary or str(error)).strip()
    detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
    if isinstance(error, psycopg2.IntegrityError | psycopg2.DataError):
        raise ConstraintViolated(said + detail, constraint=error.diag.constraint_name) from error
    if state == "42501":
        raise DatabaseRefused(f"the database role may not do this: {said}") from error
    if _OUTDATED in said:
        raise DatabaseChanged(f"the database has changed since: {said}") from error
    if state == "57014" or state[:2] in ("40", "53", "55", "58"):
        raise DatabaseBusy(f"the database could not do this now: {said}") from error
    # The driver says no kind of error where a statement of several rows met a server that died.
    cut = type(error) is psycopg2.DatabaseError and not state
    if cut or isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError) or state[:2] in ("08", "57"):
        raise DatabaseAway(f"the connection to the database was lost: {said}") from error
    raise DatabaseBroken(
        f"the database does not understand us: {said}", hint="its schema may be older than this program"
    ) from error

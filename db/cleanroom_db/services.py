"""Services and hosts: who is at work, and when they were last seen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cleanroom_base.errors import InputError
from cleanroom_db.connection import Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import HostState

_SQL = load("services")


@dataclass(frozen=True)
class Service(Entity):
    """A process of Cleanroom. `process_id` None: not running; `silent_seconds` by the database's clock."""

    name: str
    state: str
    process_id: int | None
    since: datetime
    seen_at: datetime
    detail: str
    silent_seconds: float


@dataclass(frozen=True)
class Host(Entity):
    """A machine that runs guests."""

    name: str
    state: HostState
    isolations: tuple[str, ...]
    processors: int
    memory_mib: int
    seen_at: datetime


def heartbeat(database: Database, name: str, state: str, process_id: int | None = None, detail: str = "") -> None:
    """A service says how it is; `since` changes with its state or process."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["heartbeat"], name=name, state=state, process_id=process_id, detail=plain(detail))


def list_all(database: Database) -> list[Service]:
    """All services, by name."""
    with database.transaction() as cursor:
        return [Service.from_row(row) for row in cursor.rows(_SQL["list"])]


def host_seen(database: Database, name: str, isolations: tuple[str, ...], processors: int, memory_mib: int) -> None:
    """A host says what it has; whether it takes work stays as it is."""
    with database.transaction() as cursor:
        cursor.execute(
            _SQL["host_seen"],
            name=plain(name),
            isolations=isolations,
            processors=processors,
            memory_mib=memory_mib,
        )


def set_host_state(database: Database, name: str, state: HostState) -> None:
    """Let a host take work, or not. Raises InputError."""
    with database.transaction() as cursor:
        if cursor.execute(_SQL["set_host_state"], name=plain(name), state=state) == 0:
            raise InputError(f"there is no host {name!r}", hint="'cleanroom host list' shows all")


def hosts(database: Database) -> list[Host]:
    """All hosts, by name."""
    with database.transaction() as cursor:
        return [Host.from_row(row) for row in cursor.rows(_SQL["hosts"])]

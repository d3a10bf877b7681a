"""Services and hosts: who is at work, and when they were last seen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cleanroom_base.errors import InputError
from cleanroom_db import audit
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
    """A machine that runs guests.

    `places` is how many guests may be at work on it at the same time, `running` how many somebody has, and `ready` how
    many are kept ready, as it said at `heard_at` (None: never yet). `problem` is why its worker is given nothing to do,
    and what to do about it; empty: there is none.
    """

    name: str
    state: HostState
    isolations: tuple[str, ...]
    processors: int
    memory_mib: int
    seen_at: datetime
    places: int
    ready: int
    running: int
    heard_at: datetime | None
    problem: str

    @property
    def free(self) -> int:
        """How many more guests may be at work now; none on a host that takes no work, or is given none."""
        takes_work = self.state is HostState.READY and not self.problem
        return max(self.places - self.running, 0) if takes_work else 0

    @property
    def drained(self) -> int:
        """How many more could be, if the host took work."""
        return 0 if self.state is HostState.READY else max(self.places - self.running, 0)


@dataclass(frozen=True)
class Guests:
    """What a host says of its guests, see `Host`."""

    places: int
    ready: int
    running: int


def heartbeat(database: Database, name: str, state: str, process_id: int | None = None, detail: str = "") -> None:
    """A service says how it is; `since` changes with its state or process."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["heartbeat"], name=name, state=state, process_id=process_id, detail=plain(detail))


def list_all(database: Database) -> list[Service]:
    """All services, by name."""
    with database.transaction() as cursor:
        return [Service.from_row(row) for row in cursor.rows(_SQL["list"])]


def host_seen(
    database: Database,
    name: str,
    isolations: tuple[str, ...],
    processors: int,
    memory_mib: int,
    guests: Guests | None = None,
) -> None:
    """A host says what it has (`guests` None: nothing of those); whether it takes work stays as it is."""
    with database.transaction() as cursor:
        cursor.execute(
            _SQL["host_seen"],
            name=plain(name),
            isolations=isolations,
            processors=processors,
            memory_mib=memory_mib,
        )
        if guests is not None:
            cursor.execute(_SQL["guests_seen"], name=plain(name), **vars(guests))


def drain(database: Database, name: str, actor: str, reason: str) -> Host:
    """Have a host take no new work; what runs there ends. Gives the host as it is then. Raises InputError."""
    return _change(database, name, actor, reason, "host drain")


def resume(database: Database, name: str, actor: str, reason: str) -> Host:
    """Have a host take work again. Gives the host as it is then. Raises InputError."""
    return _change(database, name, actor, reason, "host resume")


def settle(database: Database) -> frozenset[str]:
    """Have hosts be drained that take no work and have none; gives all that take none."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["settle"])
        return frozenset(row["name"] for row in cursor.rows(_SQL["closed"]))


def _change(database: Database, name: str, actor: str, reason: str, action: str) -> Host:
    with database.transaction() as cursor:
        row = cursor.row(_SQL["lock_host"], name=plain(name))
        if row is None:
            raise _no_host(name)
        ready = row["state"] == HostState.READY
        if ready is (action == "host resume"):
            raise InputError(f"{name} takes work already" if ready else f"{name} is {row['state']} already")
        state = HostState.DRAINING if ready else HostState.READY
        cursor.execute(_SQL["set_host_state"], name=plain(name), state=state)
        cursor.execute(_SQL["settle"])
        audit.record(database, actor, action, name, reason=reason)
        row = cursor.row(_SQL["lock_host"], name=plain(name))
        assert row is not None
        return Host.from_row(row)


def host(database: Database, name: str) -> Host:
    """A host. Raises InputError."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["host"], name=plain(name))
    if row is None:
        raise _no_host(name)
    return Host.from_row(row)


def hosts(database: Database) -> list[Host]:
    """All hosts, by name."""
    with database.transaction() as cursor:
        return [Host.from_row(row) for row in cursor.rows(_SQL["hosts"])]


def _no_host(name: str) -> InputError:
    return InputError(f"there is no host {name[:200]!r}", hint="'cleanroom host list' shows all")

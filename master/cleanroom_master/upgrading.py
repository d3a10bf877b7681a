"""What an upgrade of Cleanroom needs and does: the schema goes forward, and what runs old code is named.

The order is: this program first (the new version is installed), then the schema, then the services, then other hosts'
workers. Every step on the way works: a migration takes nothing away that the version before uses (a test holds it to
that), a worker may be one version behind (`protocol`), and the published repository is plain files that nobody touches.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cleanroom_base.settings import Settings
from cleanroom_db import measures, migrate, workers
from cleanroom_db.connection import Database
from cleanroom_master import program, supervisor
from cleanroom_recipes import protocol
from cleanroom_workers import room

# A worker's host knows nothing of the record; everything else loads all of it.
_ON_HOST = ("worker", "guests", "phases")
_NOT_ON_HOST = ("cleanroom_db", "cleanroom_master")
_KEPT = ("logs", "artifacts", "repository")


@dataclass(frozen=True)
class Check:
    """What an upgrade would do, and what is in its way.

    `migrations` are those that are missing; `restart` the services that run other code than is installed, None where
    that is not known; `backup` the bytes that a backup takes, `free` those that there are for it. `problems` are in the
    way, each with what to do.
    """

    migrations: list[str]
    workers: list[dict[str, object]]
    restart: list[str] | None
    backup: int
    free: int
    problems: list[str]


def check(settings: Settings, database: Database) -> Check:
    """Look at everything; nothing is changed. Raises SchemaMismatch for a database that is newer than this program."""
    pending = migrate.pending(database)
    known = [] if any(one.name == "workers" for one in pending) else workers.all_of(database)
    told: list[dict[str, object]] = [
        {"name": one.name, "protocol": one.protocol, "problem": protocol.refusal(one.protocol) or ""} for one in known
    ]
    need = measures.database_size(database) + sum(_size(settings.state / name) for name in _KEPT)
    free = room.look(settings).free
    problems = [f"worker {one['name']}: {one['problem']}" for one in told if one["problem"]]
    if need > free:
        problems.append(
            f"a backup takes up to {need >> 20} MiB, {free >> 20} are free below {settings.state}:"
            " write it elsewhere, or make room (cleanroom housekeeping --dry-run)"
        )
    names = [f"{one.number:04}_{one.name}" for one in pending]
    return Check(names, told, outdated_services(settings), need, free, problems)


def outdated_services(settings: Settings) -> list[str] | None:
    """The services that run other code than is installed; None: that is not known. Nothing runs: none."""
    running = [str(one["name"]) for one in supervisor.service_states(settings)]
    if not running:
        return []
    try:
        before: Mapping[str, str] = json.loads((settings.state / "run" / supervisor.PROGRAM).read_text())
    except (FileNotFoundError, ValueError):
        return None
    changed = {name for name, digest in program.digests().items() if before.get(name) != digest}
    return [name for name in running if changed - set(_NOT_ON_HOST if name in _ON_HOST else ())]


def _size(directory: Path) -> int:
    """The bytes of all files below a directory, each file once, whatever names it has."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for inside, _, files in os.walk(directory):
        for name in files:
            state = os.lstat(os.path.join(inside, name))  # noqa: PTH118 - a hundred thousand of them
            if state.st_nlink == 1 or (state.st_dev, state.st_ino) not in seen:
                total += state.st_size
                if state.st_nlink > 1:
                    seen.add((state.st_dev, state.st_ino))
    return total

"""Housekeeping: what the control plane keeps no more, each thing by the process that owns it.

The master has the logs, the artifacts and Buildbot's tables; the ref watch the events; the service `notifications` its
messages. The publisher collects the repository's garbage (see upkeep), a worker's host its own (cleanroom_workers).

Rows that say what happened stay, with a note that their file is kept no more. A file goes when no row needs it, and not
before the rows say so: what a kill leaves in between is a file without a row, which the next time finds again. Nothing
that is under way, held or published is touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cleanroom_base.occasion import Occasion
from cleanroom_base.settings import Settings
from cleanroom_db import housekeeping as rows
from cleanroom_db.connection import Database
from cleanroom_db.housekeeping import Horizon
from cleanroom_master import stores
from cleanroom_master.places import Places

# A file without a row may be on its way to one: it is left for a day.
_FRESH = 86_400.0
_DAY = 86_400.0
_Find = Callable[[Database, Sequence[str], Horizon], set[str]]
_Note = Callable[[Database, Sequence[str], Horizon], None]


@dataclass(frozen=True)
class Removed:
    """What went, or would go: so many things of a kind; `size` in bytes on the disk, None where that is not known."""

    what: str
    owner: str
    number: int
    size: int | None
    why: str


def occasion(settings: Settings, name: str) -> Occasion:
    """When a process is to keep house."""
    return Occasion(settings.number("retention.every"), settings.state / "run" / f"housekeeping-{name}")


def master(settings: Settings, database: Database, *, remove: bool) -> list[Removed]:
    """Logs, artifacts, and Buildbot's tables."""
    places = Places(settings)
    return [
        *_files("logs", places.logs, settings, database, (rows.unneeded_logs, rows.note_logs), remove=remove),
        *_files(
            "artifacts", places.artifacts, settings, database, (rows.unneeded_artifacts, rows.note_artifacts),
            remove=remove,
        ),
        *_rows("Buildbot's rows", "master", settings, database, "buildbot", rows.buildbot, remove=remove),
    ]  # fmt: skip


def refs(settings: Settings, database: Database, *, remove: bool) -> list[Removed]:
    """Events of refs that became no release."""
    return _rows("events", "refs", settings, database, "events", rows.events, remove=remove)


def notifications(settings: Settings, database: Database, *, remove: bool) -> list[Removed]:
    """Messages that were settled, and the changes that they told."""
    return _rows("messages", "notifications", settings, database, "notifications", rows.notifications, remove=remove)


def sessions(settings: Settings, database: Database) -> list[Removed]:
    """Sessions that are over: the next sign-in forgets them."""
    idle, age = (settings.number(f"web.session_{name}") * 3600 for name in ("idle", "age"))
    found = rows.expired_sessions(database, idle=idle, age=age)
    return [Removed("sessions", "web", found, None, "they are over; the next sign-in forgets them")]


def _rows(
    what: str,
    owner: str,
    settings: Settings,
    database: Database,
    key: str,
    work: Callable[..., int],
    *,
    remove: bool,
) -> list[Removed]:
    days = settings.number(f"retention.{key}_days")
    if not days:
        return []
    return [Removed(what, owner, work(database, days * _DAY, remove=remove), None, _older(key, days))]


def _files(
    what: str,
    directory: Path,
    settings: Settings,
    database: Database,
    how: tuple[_Find, _Note],
    *,
    remove: bool,
) -> list[Removed]:
    """Remove the files of a store that no row needs."""
    days = settings.number(f"retention.{what}_days")
    if not days:
        return []
    with stores.removal(settings.state) as may:
        if remove and not may:
            return [Removed(what, "master", 0, 0, "a backup is being made: nothing is removed meanwhile")]
        return [_sweep(what, directory, settings, database, how, remove=remove)]


def _sweep(
    what: str,
    directory: Path,
    settings: Settings,
    database: Database,
    how: tuple[_Find, _Note],
    *,
    remove: bool,
) -> Removed:
    days = settings.number(f"retention.{what}_days")
    find, note = how
    horizon = Horizon(days * _DAY, settings.whole("repository.keep"))
    before = time.time() - _FRESH
    number, size = 0, 0
    for there in stores.contents(directory, before=before):
        gone = find(database, [one.sha256 for one in there], horizon)
        old = [one for one in there if one.sha256 in gone]
        if remove and old:
            note(database, [one.sha256 for one in old], horizon)
            old = [one for one in old if stores.remove(directory, one, before=before)]
        number, size = number + len(old), size + sum(one.size for one in old)
    return Removed(what, "master", number, size, f"{_older(what, days)}, and not published, held or under way")


def _older(key: str, days: float) -> str:
    return f"older than retention.{key}_days = {days:g}"


def total(removed: Iterable[Removed]) -> int:
    """The bytes of all that went."""
    return sum(one.size or 0 for one in removed)

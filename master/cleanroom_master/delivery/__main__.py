"""The process that brings every generation to the site's remote, as soon as consumers see it here."""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import closing

from cleanroom_base import health, log_records
from cleanroom_base.errors import CleanroomError, causes
from cleanroom_base.log_records import about
from cleanroom_base.settings import Settings, load
from cleanroom_db import deliveries
from cleanroom_db.cluster import open_database
from cleanroom_db.connection import Database
from cleanroom_db.listen import GENERATION, Listener
from cleanroom_db.roles import Role
from cleanroom_master.delivery import tree
from cleanroom_master.delivery.push import push
from cleanroom_master.delivery.remote import Remote
from cleanroom_master.publish.site import repository_directory

# Seconds between two looks, and after trouble, where the pause grows.
_LOOK = 60.0
# A push of everything may take so long, in seconds.
_LONGEST_PUSH = 86_400.0
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0

_log = logging.getLogger(__name__)


def work(settings: Settings) -> None:
    """Push until SIGTERM: woken by NOTIFY, made right by polling. Raises InputError for a remote that is none."""
    remote = Remote.of(settings)
    database = open_database(settings, Role.PUBLISHER)
    ended: list[int] = []
    with closing(Listener(database.url, [GENERATION])) as listener:

        def end(number: int, _: object) -> None:
            ended.append(number)
            listener.interrupt()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        pulse = health.Server.begin(settings, "delivery", patience=_LONGEST_PUSH)
        pause = _FIRST_PAUSE
        while not ended:
            try:
                push_if_needed(settings, database, remote)
            except CleanroomError as error:
                _log.warning("the push is tried again in %.0f s: %s", pause, error)
                pulse.turn(f"the remote: {error.message}", within=pause)
                listener.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                pause = _FIRST_PAUSE
                pulse.turn("the next generation", within=_LOOK)
                listener.wait(_LOOK)


def push_if_needed(settings: Settings, database: Database, remote: Remote) -> bool:
    """Bring what consumers see to the remote, if it is not there; False if there is nothing to do."""
    directory = repository_directory(settings)
    if not (directory / "current").exists():
        return False
    number, _ = tree.current(directory)
    known = {one.remote: one.generation for one in deliveries.all_of(database)}
    if known.get(remote.url) == number:
        return False
    pushed = push(database, directory, remote)
    told = (remote.url, pushed.generation, pushed.files, pushed.size)
    _log.info("%s has generation %d: %d files, %d bytes", *told, extra=about(generation=pushed.generation))
    return True


def main() -> None:
    """Push in this process."""
    log_records.begin("delivery")
    try:
        work(load())
    except CleanroomError as error:
        _log.critical("%s", "\n".join(causes(error)))
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()

"""What the other services find when they start, where systemd runs them: `python -m cleanroom_master.database`.

It makes directories, passwords and the newest schema, runs the private database as long as it is not ended itself, and
starts it again when it ended. Where the site has its own PostgreSQL, it only brings the schema up to date.
"""

from __future__ import annotations

import signal
import sys
import threading

from cleanroom_base.errors import CleanroomError
from cleanroom_base.settings import Settings, load
from cleanroom_db import cluster
from cleanroom_master import supervisor, systemd

_LOOK = 2.0


def keep(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then end the database. Raises CleanroomError when it cannot begin."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    supervisor.prepare(settings)
    systemd.ready()
    while not ended.wait(_LOOK):
        if cluster.is_private(settings) and not cluster.status(settings).running:
            sys.stderr.write("the database ended; it is started again\n")
            try:
                cluster.ensure(settings)
            except CleanroomError as error:
                sys.stderr.write(f"the database does not start: {error}\n")
    cluster.stop(settings)


def main() -> None:
    """Keep the database in this process."""
    try:
        keep(load())
    except CleanroomError as error:
        sys.stderr.write(f"cleanroom database: {error}\n")
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()

"""The ref watch as a process: `python -m cleanroom_master.refs`."""

from __future__ import annotations

import logging
import signal
import sys

from cleanroom_base import settings as site
from cleanroom_base.errors import CleanroomError, causes
from cleanroom_base.settings import Settings
from cleanroom_db import cluster
from cleanroom_db.roles import Role
from cleanroom_master.refs.watch import Watch


def main(settings: Settings) -> int:
    """Watch until SIGTERM or SIGINT; return the exit status."""
    database = cluster.open_database(settings, Role.REFS)
    watch = Watch(settings, database)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: watch.stop())
    watch.run()
    database.close()
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        sys.exit(main(site.load()))
    except CleanroomError as error:
        logging.critical("%s", "\n".join(causes(error)))
        sys.exit(error.exit_status)

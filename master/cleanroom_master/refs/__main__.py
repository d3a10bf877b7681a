"""The ref watch as a process: `python -m cleanroom_master.refs`."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from pathlib import Path

from cleanroom_base import health, log_records
from cleanroom_base import settings as site
from cleanroom_base.errors import CleanroomError, causes
from cleanroom_base.settings import Settings
from cleanroom_db import cluster
from cleanroom_db.roles import Role
from cleanroom_master.refs.mirror import forget_inherited
from cleanroom_master.refs.watch import SERVICE, Watch


def main(settings: Settings) -> int:
    """Watch until SIGTERM or SIGINT; return the exit status."""
    forget_inherited()
    database = cluster.open_database(settings, Role.REFS)
    watch = Watch(settings, database, health.Server.begin(settings, SERVICE))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: watch.stop())
    watch.run()
    return 0


def end_children() -> None:
    """End the programs that run for this process, each with its process group. Source: proc(5), `children`."""
    for children in Path("/proc/self/task").glob("*/children"):
        process_ids = []
        # A thread that ended meanwhile has none.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            process_ids = children.read_text().split()
        for process_id in process_ids:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(process_id), signal.SIGKILL)


if __name__ == "__main__":
    log_records.begin("refs")
    try:
        status = main(site.load())
    except CleanroomError as error:
        logging.critical("%s", "\n".join(causes(error)))
        status = error.exit_status
    # Not sys.exit, which would wait for a fetch that goes on.
    end_children()
    os._exit(status)

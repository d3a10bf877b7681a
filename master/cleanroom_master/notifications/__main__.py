"""The notifications as a process: `python -m cleanroom_master.notifications`."""

from __future__ import annotations

import logging
import signal
import sys

from cleanroom_base import health, log_records
from cleanroom_base import settings as site
from cleanroom_base.errors import CleanroomError, causes
from cleanroom_base.settings import Settings
from cleanroom_db import cluster
from cleanroom_db.roles import Role
from cleanroom_master.notifications.service import SERVICE, Notifier


def main(settings: Settings) -> None:
    """Tell until SIGTERM or SIGINT."""
    pulse = health.Server.begin(settings, SERVICE)
    notifier = Notifier(settings, cluster.open_database(settings, Role.NOTIFICATIONS), pulse=pulse)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: notifier.stop())
    notifier.run()


if __name__ == "__main__":
    log_records.begin("notifications")
    try:
        main(site.load())
    except CleanroomError as error:
        logging.critical("%s", "\n".join(causes(error)))
        sys.exit(error.exit_status)

"""The process of the web status."""

from __future__ import annotations

import logging
import sys

from cleanroom_base import log_records
from cleanroom_base.errors import CleanroomError, causes
from cleanroom_base.settings import load
from cleanroom_master.web.serving import serve

if __name__ == "__main__":
    log_records.begin("web")
    try:
        serve(load())
    except CleanroomError as error:
        logging.critical("%s", "\n".join(causes(error)))
        sys.exit(error.exit_status)

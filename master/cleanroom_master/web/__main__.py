"""The process of the web status."""

from __future__ import annotations

import sys

from cleanroom_base.errors import CleanroomError
from cleanroom_base.settings import load
from cleanroom_master.web.serving import serve

if __name__ == "__main__":
    try:
        serve(load())
    except CleanroomError as error:
        sys.stderr.write(f"cleanroom web: {error}\n")
        sys.exit(error.exit_status)

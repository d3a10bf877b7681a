"""`make bench [PART=...]`: measure, print tables, write bench.json. Times are shown, never judged."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from installation import home, say

from cleanroom_base.errors import CleanroomError, InfrastructureError
from cleanroom_master.cli.frame import plain, table
from cleanroom_workers.locks import attempted

PARTS = ("guests", "claims", "events", "way", "regression", "publish", "web")
# A quarter of an hour, and more than an hour: where they are asked for.
LONG = ("soak", "endurance")
_HELP = f"of: {', '.join((*PARTS, *LONG))} (default: all but {', '.join(LONG)})"
_FILE = Path("bench.json")


def main() -> int:
    """Measure the parts that are asked for, or all; what was measured of others before is kept in the file."""
    parser = argparse.ArgumentParser(prog="tests/bench", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, *LONG, []], help=_HELP)
    parser.add_argument("--runs", type=int, metavar="N", help="measure so often (events: so many)")
    options = parser.parse_args()
    # What was started is to be ended also when somebody ends this process.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    home().mkdir(parents=True, exist_ok=True)
    with attempted(home() / "lock") as alone:
        if not alone:
            say("another measurement runs on this machine; two would spoil each other")
            return InfrastructureError.exit_status
        return _measure(options.part or PARTS, options.runs)


def _measure(parts: Sequence[str], runs: int | None) -> int:
    failed = 0
    for name in parts:
        module = importlib.import_module(name)
        say(f"measuring {name}; others at work on this machine ({os.getloadavg()[0]:.1f} of load) spoil times")
        try:
            found = module.measure(runs)
        except CleanroomError as error:
            say(f"{name} could not be measured: {error}")
            failed = error.exit_status
            continue
        found["machine"] = _machine()
        # What was measured of other parts stays.
        measured: dict[str, Any] = json.loads(_FILE.read_text()) if _FILE.exists() else {}
        measured[name] = plain(found)
        _FILE.write_text(json.dumps(measured, indent=1) + "\n")
        for title, rows in module.tables(found):
            if rows:
                sys.stdout.write(f"\n{title}\n{table(rows, list(rows[0]))}\n")
        sys.stdout.flush()
    return failed


def _machine() -> dict[str, object]:
    """On what was measured, and how busy it was: one minute, five, and fifteen."""
    return {
        "at": datetime.now(UTC),
        "processors": os.cpu_count(),
        "kernel": os.uname().release,
        "load": [round(load, 2) for load in os.getloadavg()],
    }


if __name__ == "__main__":
    sys.exit(main())

"""Where `cleanroom-worker` begins: a phase is left to the server that has everything loaded, if there is one."""

from __future__ import annotations

import sys

from cleanroom_base.parent import end_with_parent
from cleanroom_workers import phase_server


def main() -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["run-phase"]:
        # A phase whose Buildbot worker is gone has nobody to tell anything.
        end_with_parent()
        status = phase_server.ask(arguments)
        if status is not None:
            return status
    # Only now: loading it is what takes its time.
    from cleanroom_workers import command

    return command.main(arguments)

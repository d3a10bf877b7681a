"""The command line: `cleanroom NOUN VERB`.

Tables for people, JSON for scripts (`--format json`), progress on standard error and only on a terminal.
Exit status: 0 done or passed, 1 the product failed, 2 usage or bad input, 3 infrastructure, 4 timed out.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence

from cleanroom_base.errors import CleanroomError, causes
from cleanroom_master.cli.frame import Commands, Context

__all__ = ["main", "parser"]


def main(words: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Raised, so that what this process has started ends with it; under nohup(1) one of them is to do nothing.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda received, _: sys.exit(128 + received))
    sys.exit(run(sys.argv[1:] if words is None else words))


def run(words: Sequence[str]) -> int:
    """Run one command and return its exit status; errors are printed, causes one a line."""
    arguments = _commands(words).parse(words)
    try:
        return arguments.handler(Context(arguments), arguments) or 0
    except CleanroomError as error:
        if os.environ.get("CLEANROOM_TRACEBACK"):
            traceback.print_exc()
        first, *rest = causes(error)
        sys.stderr.write(f"cleanroom: {first}\n" + "".join(f"  because: {line}\n" for line in rest))
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`cleanroom ... | head`); nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parser() -> argparse.ArgumentParser:
    """The whole command line, for whoever describes it; each time a new one."""
    return _commands().parser


def _commands(words: Sequence[str] = ()) -> Commands:
    from cleanroom_master.cli import health

    commands = Commands()
    health.register(commands)
    if words[:1] == ["health"]:
        # Asked every few seconds of every process: all that the other commands load would cost more than the answer.
        return commands
    from cleanroom_master.cli import (
        accounts,
        backups,
        bisections,
        channels,
        configuration,
        database,
        guests,
        hosts,
        housekeeping,
        images,
        products,
        provenance,
        queue,
        refs,
        releases,
        repository,
        services,
        site,
        telling,
        test_cases,
        tokens,
        upgrades,
    )

    for module in (
        site,
        services,
        database,
        configuration,
        products,
        refs,
        releases,
        queue,
        channels,
        test_cases,
        bisections,
        images,
        guests,
        hosts,
        repository,
        telling,
        provenance,
        accounts,
        tokens,
        housekeeping,
        backups,
        upgrades,
    ):
        module.register(commands)
    return commands

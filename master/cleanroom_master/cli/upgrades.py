"""`cleanroom upgrade`: bring the record to the installed version, and say what is to be started again."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_db import migrate
from cleanroom_master import upgrading
from cleanroom_master.backup import making
from cleanroom_master.cli.frame import Commands, Context
from cleanroom_master.upgrading import Check


def register(commands: Commands) -> None:
    """Declare the command."""
    verb = commands.verb(
        "upgrade",
        upgrade,
        "bring the record to the installed version while everything runs, and say what is to be started again",
        "cleanroom upgrade --check",
    )
    verb.add_argument("--check", action="store_true", help="only say what would be done, and what is in the way")
    verb.add_argument("--backup", type=Path, metavar="FILE", help="write a backup before anything is changed")
    verb.add_argument("--force", action="store_true", help="even if something is in the way")


def upgrade(context: Context, arguments: argparse.Namespace) -> int:
    """Exit status 0 all is well (with --check: nothing is in the way), 3 something is."""
    found = upgrading.check(context.settings, context.database)
    if arguments.check:
        context.emit({**asdict(found), "applied": []}, "\n".join(_plan(found)))
        return InfrastructureError.exit_status if found.problems else 0
    if found.problems and not arguments.force:
        raise InfrastructureError("; ".join(found.problems), hint="mend that first, or use --force")
    if arguments.backup is not None:
        context.progress(f"writing {arguments.backup}")
        making.make(
            context.settings, context.database, arguments.backup.absolute(), passphrase=None, progress=lambda *_: None
        )
    applied = migrate.apply(context.database)
    lines = [f"applied {name}" for name in applied] or ["the record is at the newest schema"]
    context.emit({**asdict(found), "applied": applied}, "\n".join([*lines, *_restart(found)]))
    return 0


def _plan(found: Check) -> list[str]:
    """What would be done, for people."""
    lines = [f"would apply {name}" for name in found.migrations] or ["the record is at the newest schema"]
    lines += [f"worker {one['name']}: speaks version {one['protocol']}" for one in found.workers]
    lines.append(f"a backup takes up to {found.backup >> 20} MiB, {found.free >> 20} are free")
    lines += _restart(found)
    return lines + [f"in the way: {problem}" for problem in found.problems]


def _restart(found: Check) -> list[str]:
    """What is to be started again, for people."""
    how = "cleanroom down, cleanroom up --detach"
    if found.restart is None:
        return [f"which code the services run is not known: start them again ({how})"]
    if not found.restart:
        return ["no service runs other code than is installed"]
    return [f"to be started again, since they run other code: {', '.join(found.restart)} ({how})"]

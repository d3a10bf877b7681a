"""`cleanroom service`: one process in the foreground, for whoever tends them by other means than `cleanroom up`."""

from __future__ import annotations

import argparse
import os

from cleanroom_base import run
from cleanroom_base.errors import InputError
from cleanroom_master import supervisor
from cleanroom_master.cli.frame import Commands, Context


def register(commands: Commands) -> None:
    """Declare the verbs of `service`."""
    service = commands.noun("service", "the processes of Cleanroom, one by one")
    service.verb("list", show, "which processes there are, and how each is started", "cleanroom service list")
    one = service.verb(
        "run",
        run_one,
        "run one process here until it is interrupted",
        "cleanroom service run publisher",
        about="For systemd, containers and the like; the database must be there ('cleanroom database migrate').",
    )
    one.add_argument("name", metavar="NAME", help="one that 'cleanroom service list' shows")


def show(context: Context, _: argparse.Namespace) -> None:
    """List the processes that this site's settings ask for."""
    rows = [{"name": one.name, "command": " ".join(one.command)} for one in supervisor.services(context.settings)]
    context.rows(rows, ["name", "command"], "none")


def run_one(context: Context, arguments: argparse.Namespace) -> None:
    """Become one of the processes. Raises InputError for a name that is none."""
    known = {one.name: one for one in supervisor.services(context.settings)}
    service = known.get(arguments.name)
    if service is None:
        raise InputError(f"there is no process {arguments.name!r}", hint=f"one of: {', '.join(known)}")
    os.environ.update({**service.environment, "PYTHONUNBUFFERED": "1"})
    run.replace(service.command)

"""`cleanroom health`: whether the processes of this machine are well. It loads little, because it is asked often."""

from __future__ import annotations

import argparse

from cleanroom_base import health
from cleanroom_base.errors import InfrastructureError
from cleanroom_master.cli.frame import Commands, Context, table

STUCK = 1


def register(commands: Commands) -> None:
    """Declare the command."""
    verb = commands.verb(
        "health",
        show,
        "whether processes of this machine are alive, and their loops turn",
        "cleanroom health publisher --format json",
    )
    verb.description = (
        f"{verb.description}\n\nExit status: 0 all are healthy, 1 one is stuck (it answers too late, or a loop of it is"
        " overdue),\n3 one does not run."
    )
    verb.add_argument("names", nargs="*", metavar="SERVICE", help="default: all that were started on this machine")
    verb.add_argument("--timeout", type=float, default=health.ANSWER, metavar="S", help="longest wait for an answer")


def show(context: Context, arguments: argparse.Namespace) -> int:
    """Ask, and answer with the worst."""
    names = arguments.names or health.known(context.settings)
    if not names:
        raise InfrastructureError("nothing was started on this machine", hint="cleanroom up --detach")
    found = health.ask(context.settings, names, timeout=arguments.timeout)
    rows = [{**one, "waits_for": "; ".join(loop["waits_for"] for loop in one["loops"])} for one in found]
    context.emit(found, table(rows, ["name", "state", "since", "process", "waits_for"]))
    states = {one["state"] for one in found}
    if health.State.NOT_RUNNING in states:
        return InfrastructureError.exit_status
    return STUCK if health.State.STUCK in states else 0

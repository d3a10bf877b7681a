"""`cleanroom host`: the machines that run guests, and whether they take work."""

from __future__ import annotations

import argparse
import getpass
from typing import Any

from cleanroom_db import services
from cleanroom_db.services import Host
from cleanroom_master.cli.frame import Commands, Context

_COLUMNS = ["name", "state", "isolations", "free", "ready", "running", "drained", "processors", "memory_mib", "seen_at"]
_PROBLEM = "problem"


def register(commands: Commands) -> None:
    """Declare the verbs of `host`."""
    host = commands.noun("host", "the machines that run guests")
    host.verb("list", list_all, "show all hosts, with their guests", "cleanroom host list --format json")
    draining = host.verb(
        "drain",
        drain,
        "have a host take no new work; what runs there ends",
        'cleanroom host drain builder1 --reason "new memory"',
    )
    draining.add_argument("name", metavar="HOST")
    draining.add_argument("--reason", default="", metavar="TEXT", help="why; kept in the audit log")
    resuming = host.verb("resume", resume, "have a host take work again", "cleanroom host resume builder1")
    resuming.add_argument("name", metavar="HOST")
    resuming.add_argument("--reason", default="", metavar="TEXT", help="why; kept in the audit log")


def list_all(context: Context, _: argparse.Namespace) -> None:
    """Show hosts."""
    rows = [view(one) for one in services.hosts(context.database)]
    columns = [*_COLUMNS, _PROBLEM] if any(row[_PROBLEM] for row in rows) else _COLUMNS
    context.rows(rows, columns, "no host has said anything yet; the worker starts with 'cleanroom up'")


def drain(context: Context, arguments: argparse.Namespace) -> None:
    """Have a host take no work."""
    found = services.drain(context.database, arguments.name, getpass.getuser(), arguments.reason)
    context.emit(view(found), f"{found.name} takes no new work, and is {found.state}")


def resume(context: Context, arguments: argparse.Namespace) -> None:
    """Have a host take work."""
    found = services.resume(context.database, arguments.name, getpass.getuser(), arguments.reason)
    context.emit(view(found), f"{found.name} takes work")


def view(host: Host) -> dict[str, Any]:
    """A host as scripts get it."""
    return {
        **{name: getattr(host, name) for name in _COLUMNS},
        "isolations": list(host.isolations),
        "places": host.places,
        "heard_at": host.heard_at,
        _PROBLEM: host.problem,
    }

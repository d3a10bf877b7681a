"""`cleanroom housekeeping`: what is kept no more, or would go."""

from __future__ import annotations

import argparse
import getpass
import json
import sysconfig
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cleanroom_base.errors import CleanroomError, InfrastructureError
from cleanroom_base.run import run
from cleanroom_db import requests
from cleanroom_db.states import RequestKind
from cleanroom_master import housekeeping
from cleanroom_master.cli import asking
from cleanroom_master.cli.frame import Commands, Context, table
from cleanroom_master.housekeeping import Removed

_HOST_TIMEOUT = 600.0


def register(commands: Commands) -> None:
    """Declare the command."""
    verb = commands.verb(
        "housekeeping",
        keep_house,
        "remove what is kept no more; each service does its part by itself, every retention.every hours",
        "cleanroom housekeeping --dry-run",
    )
    verb.add_argument("--dry-run", action="store_true", help="only say what would go, and how much")
    asking.add_timeout(verb)


def keep_house(context: Context, arguments: argparse.Namespace) -> int:
    """Exit status 0 all was looked at, 3 a part could not be (the publisher does not run, for example)."""
    remove = not arguments.dry_run
    settings, database = context.settings, context.database
    found: list[Removed] = []
    problems: list[str] = []
    looks: dict[str, Callable[[], list[Removed]]] = {
        "logs, artifacts and Buildbot's rows": lambda: housekeeping.master(settings, database, remove=remove),
        "events": lambda: housekeeping.refs(settings, database, remove=remove),
        "messages": lambda: housekeeping.notifications(settings, database, remove=remove),
        "sessions": lambda: housekeeping.sessions(settings, database),
        "what this host does not use": lambda: _host(remove=remove),
        "the repository": lambda: _repository(context, arguments.timeout, remove=remove),
    }
    for what, work in looks.items():
        context.progress(f"looking at {what}")
        try:
            found += work()
        except CleanroomError as error:
            problems.append(f"{what}: {error.message}")
    _tell(context, found, problems, dry=not remove)
    return InfrastructureError.exit_status if problems else 0


def _tell(context: Context, found: list[Removed], problems: list[str], *, dry: bool) -> None:
    rows: list[dict[str, Any]] = [{**asdict(one), "MiB": _mebibytes(one.size)} for one in found]
    size = housekeeping.total(found)
    lines = [table(rows, ["what", "owner", "number", "MiB", "why"])]
    lines.append(f"{'would go' if dry else 'gone'}: {_mebibytes(size)} MiB")
    lines += [f"not looked at: {problem}" for problem in problems]
    data = {"dry_run": dry, "removed": [asdict(one) for one in found], "size": size, "problems": problems}
    context.emit(data, "\n".join(lines))


def _mebibytes(size: int | None) -> str | None:
    return None if size is None else f"{size / 1048576:.1f}"


def _host(*, remove: bool) -> list[Removed]:
    """What this machine keeps as a host of guests; other hosts keep their own house."""
    worker = Path(sysconfig.get_path("scripts")) / "cleanroom-worker"
    done = run([worker, "housekeeping", *([] if remove else ["--dry-run"])], timeout=_HOST_TIMEOUT)
    return [Removed(one["what"], "host", one["number"], one["size"], one["why"]) for one in json.loads(done.stdout)]


def _repository(context: Context, timeout: float, *, remove: bool) -> list[Removed]:
    """Ask the publisher, which alone changes the repository and knows what is on its way into it."""
    asked = requests.ask(
        context.database,
        RequestKind.COLLECT,
        actor=getpass.getuser(),
        subject="the repository",
        parameters={} if remove else {"dry": True},
    )
    done = asking.settled(context, asked, timeout, "repository gc").result
    keep, grace = context.settings.whole("repository.keep"), context.settings.number("repository.grace")
    old = f"beyond repository.keep = {keep} and older than repository.grace = {grace:g} h"
    return [
        Removed("generations", "publisher", len(done.get("generations", ())), None, old),
        Removed("published files", "publisher", done.get("files", 0), done.get("size", 0), "no generation has them"),
    ]

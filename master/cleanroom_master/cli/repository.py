"""`cleanroom repository`: what is published."""

from __future__ import annotations

import argparse
from collections import defaultdict

from cleanroom_db import generations
from cleanroom_master.cli.frame import Commands, Context, table


def register(commands: Commands) -> None:
    """Declare the verbs of `repository`."""
    repository = commands.noun("repository", "the published apt and yum repository")
    repository.verb("show", show, "show what every channel publishes now", "cleanroom repository show --format json")
    listing = repository.verb("history", history, "show the generations, newest first", "cleanroom repository history")
    listing.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (default 20)")


def show(context: Context, _: argparse.Namespace) -> None:
    """Show the current generation."""
    current = generations.current(context.database)
    contents = [] if current is None else generations.contents(context.database, current.number)
    channels: dict[str, list[dict[str, object]]] = defaultdict(list)
    for package in contents:
        channels[package.channel].append(
            {
                "name": package.name,
                "version": package.version,
                "architecture": package.architecture,
                "format": package.format,
                "target": package.target,
                "file": package.file,
                "sha256": package.sha256,
                "size": package.size,
            }
        )
    url = context.settings.repository_url + "/"
    data = {
        "url": url,
        "generation": None if current is None else current.number,
        "channels": [{"name": name, "packages": packages} for name, packages in sorted(channels.items())],
    }
    lines = [f"{url} generation {data['generation'] or '- (nothing is published yet)'}"]
    for name, packages in sorted(channels.items()):
        lines += ["", name, table(packages, ["name", "version", "architecture", "format", "target"])]
    context.emit(data, "\n".join(lines))


def history(context: Context, arguments: argparse.Namespace) -> None:
    """Show the generations that consumers saw."""
    rows = [
        {
            "number": generation.number,
            "at": generation.switched_at,
            "actor": generation.actor,
            "reason": generation.reason,
            "added": generation.added,
            "removed": generation.removed,
        }
        for generation in generations.history(context.database, limit=arguments.limit)
    ]
    if context.as_json:
        context.emit(rows)
        return
    short = [{**row, "added": len(row["added"]), "removed": len(row["removed"])} for row in rows]  # type: ignore[arg-type]
    context.rows(short, ["number", "at", "actor", "reason", "added", "removed"], "nothing was published yet")

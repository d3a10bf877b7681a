"""`cleanroom repository`: what is published, what was, and how to take it back."""

from __future__ import annotations

import argparse
import getpass
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from cleanroom_base.errors import InputError
from cleanroom_db import generations, requests
from cleanroom_db.generations import ChannelPackage, ChannelRelease, Difference
from cleanroom_db.states import RequestKind
from cleanroom_master import asking_back
from cleanroom_master.cli import asking, keys
from cleanroom_master.cli.frame import Commands, Context, printable, table

_PACKAGE = ("name", "version", "architecture", "format", "target", "file", "sha256", "size")
_COLUMNS = ["name", "version", "architecture", "format", "target"]
_WITHDRAWN = ("name", "version", "architecture", "format", "target", "product", "ref", "actor", "reason", "at")


def register(commands: Commands) -> None:
    """Declare the verbs of `repository`."""
    repository = commands.noun("repository", "the published apt and yum repository")
    repository.verb("show", show, "show what every channel publishes now", "cleanroom repository show --format json")
    listing = repository.verb("history", history, "show the generations, newest first", "cleanroom repository history")
    listing.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (default 20)")
    differing = repository.verb(
        "diff", diff, "show what one generation has and another has not", "cleanroom repository diff 41 42"
    )
    differing.add_argument("first", type=_number, metavar="A")
    differing.add_argument("second", type=_number, metavar="B")
    back = repository.verb(
        "rollback",
        rollback,
        "publish again what an earlier generation had",
        'cleanroom repository rollback 41 --reason "v2.10 does not start"',
        about="apt and yum change together. It is a new generation; a rollback to a later one brings back what this one"
        " takes away, but never what was withdrawn. 'cleanroom repository diff' says beforehand what would change.",
    )
    back.add_argument("generation", type=_number, metavar="GENERATION")
    back.add_argument("--reason", required=True, help="is shown in the history and in the releases")
    back.add_argument("--force", action="store_true", help="even if that takes security fixes back")
    asking.add_timeout(back)
    check = repository.verb(
        "verify",
        verify,
        "check every file of the current generation as its clients do",
        "cleanroom repository verify --repair",
        about="Exit status 0: all is as it was published; 1: something differs.",
    )
    check.add_argument("--repair", action="store_true", help="make what differs anew, from the pool and the artifacts")
    asking.add_timeout(check)
    garbage = repository.verb(
        "gc",
        collect,
        "remove old generations, and files that no generation has any more",
        "cleanroom repository gc",
        about="The publisher does it by itself once a day. repository.keep and repository.grace say what stays.",
    )
    asking.add_timeout(garbage)
    keys.register(repository)


def _number(text: str) -> int:
    """A generation's number, as argparse wants it."""
    number = int(text)
    if not 0 < number < 1 << 63:
        raise ValueError
    return number


def show(context: Context, _: argparse.Namespace) -> None:
    """Show the current generation."""
    current = generations.current(context.database)
    contents = [] if current is None else generations.contents(context.database, current.number)
    channels: dict[str, list[dict[str, object]]] = defaultdict(list)
    for package in contents:
        channels[package.channel].append({name: getattr(package, name) for name in _PACKAGE})
    withdrawn: dict[str, list[dict[str, object]]] = defaultdict(list)
    for row in generations.withdrawn(context.database):
        withdrawn[row["channel"]].append({name: row[name] for name in _WITHDRAWN})
    url = context.settings.repository_url + "/"
    names = sorted({*channels, *withdrawn})
    data = {
        "url": url,
        "generation": None if current is None else current.number,
        "channels": [
            {"name": name, "packages": channels.get(name, []), "withdrawn": withdrawn.get(name, [])} for name in names
        ],
    }
    lines = [f"{url} generation {data['generation'] or '- (nothing is published yet)'}"]
    for name in names:
        lines += ["", name, table(channels.get(name, []), _COLUMNS)]
        if name in withdrawn:
            lines += ["", f"withdrawn from {name}", table(withdrawn[name], [*_COLUMNS[:3], "actor", "reason"])]
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


def diff(context: Context, arguments: argparse.Namespace) -> None:
    """Show how two generations differ."""
    for number in (arguments.first, arguments.second):
        generations.get(context.database, number)
    found = generations.difference(context.database, arguments.first, arguments.second)
    context.emit(
        {"from": arguments.first, "to": arguments.second, **difference_view(found)},
        describe(found) or f"generations {arguments.first} and {arguments.second} publish the same",
    )


def difference_view(found: Difference) -> dict[str, Any]:
    """A difference as scripts read it."""
    return {
        "added": [_package(one) for one in found.added],
        "removed": [_package(one) for one in found.removed],
        "releases_added": [_release(one) for one in found.releases_added],
        "releases_removed": [_release(one) for one in found.releases_removed],
    }


def describe(found: Difference) -> str:
    """A difference for people; empty where there is none."""
    lines = [f"{sign} {one.product} {one.ref} in {one.channel}{_mends(one)}" for sign, one in _signed(found)]
    packages = [{"": sign, **_package(one)} for sign, one in _signed_packages(found)]
    if packages:
        lines += ["", table(packages, ["", "channel", *_COLUMNS])]
    return "\n".join(lines)


def rollback(context: Context, arguments: argparse.Namespace) -> None:
    """Publish again what an earlier generation had."""
    current = generations.current(context.database)
    if current is None:
        raise InputError("nothing is published yet")
    plan = asking_back.plan_rollback(context.database, current.number, arguments.generation)
    context.progress(describe(plan.difference))
    asked = asking_back.ask_rollback(
        context.database,
        plan,
        current=current.number,
        target=arguments.generation,
        actor=getpass.getuser(),
        reason=arguments.reason,
        forced=arguments.force,
    )
    done = asking.settled(context, asked, arguments.timeout, f"rollback to generation {arguments.generation}")
    data = {
        "generation": done.generation,
        "contents_of": arguments.generation,
        "actor": done.actor,
        "reason": done.reason,
        "warnings": list(done.result.get("warnings", ())),
        "kept_out": list(done.result.get("kept_out", ())),
    }
    lines = [f"generation {done.generation} publishes what generation {arguments.generation} had"]
    lines += [f"  warning: {printable(warning)}" for warning in data["warnings"]]
    lines += [f"  not {printable(one)}: it was withdrawn" for one in data["kept_out"]]
    context.emit(data, "\n".join(lines))


def verify(context: Context, arguments: argparse.Namespace) -> int:
    """Exit status 0 all is as published (or was repaired), 1 something differs."""
    kind = RequestKind.REPAIR if arguments.repair else RequestKind.VERIFY
    asked = requests.ask(context.database, kind, actor=getpass.getuser(), subject="the published repository")
    done = asking.settled(context, asked, arguments.timeout, "repository verify")
    problems = list(done.result.get("problems", ()))
    left = list(done.result.get("left", problems))
    data = {
        "generation": done.result.get("generation"),
        "identical": not problems,
        "problems": problems,
        "repaired_by": done.generation,
        "left": left,
    }
    lines = [f"{printable(problem['place'])}: {printable(problem['message'])}" for problem in problems]
    if done.generation is not None:
        lines.append(f"made anew as generation {done.generation}")
    lines += [f"not repaired: {printable(problem['place'])}: {printable(problem['message'])}" for problem in left]
    context.emit(data, "\n".join(lines) or f"generation {data['generation']} is as it was published")
    return 1 if left else 0


def collect(context: Context, arguments: argparse.Namespace) -> None:
    """Remove what no generation has any more."""
    asked = requests.ask(context.database, RequestKind.COLLECT, actor=getpass.getuser(), subject="the repository")
    done = asking.settled(context, asked, arguments.timeout, "repository gc")
    data = {name: done.result.get(name) for name in ("generations", "files", "size")}
    context.emit(
        data,
        f"removed {len(data['generations'] or ())} generations and {data['files']} files"
        f" ({(data['size'] or 0) / 1048576:.1f} MiB)",
    )


def _package(one: ChannelPackage) -> dict[str, object]:
    return {"channel": one.channel, **{name: getattr(one, name) for name in _PACKAGE}}


def _release(one: ChannelRelease) -> dict[str, object]:
    return {"product": one.product, "ref": one.ref, "channel": one.channel, "security_fix": one.evidence}


def _mends(one: ChannelRelease) -> str:
    return f" (security fix: {printable(one.evidence)})" if one.evidence else ""


def _signed(found: Difference) -> Iterable[tuple[str, ChannelRelease]]:
    return [*(("-", one) for one in found.releases_removed), *(("+", one) for one in found.releases_added)]


def _signed_packages(found: Difference) -> Sequence[tuple[str, ChannelPackage]]:
    return [*(("-", one) for one in found.removed), *(("+", one) for one in found.added)]

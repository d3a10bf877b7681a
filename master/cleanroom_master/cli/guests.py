"""`cleanroom guest`: disposable guests on this host, for people."""

from __future__ import annotations

import argparse
import sys

from cleanroom_base.errors import InputError
from cleanroom_master.cli.frame import Commands, Context
from cleanroom_workers.host import Host

COLUMNS = ["name", "image", "isolation", "network", "address", "state", "started_at", "reset_seconds"]


def register(commands: Commands) -> None:
    """Declare the verbs of `guest`."""
    guest = commands.noun("guest", "disposable guests on this host")
    guest.verb("list", list_all, "show all guests", "cleanroom guest list")
    resetting = guest.verb("reset", reset, "start a clean guest", "cleanroom guest reset debian-12 --format json")
    resetting.add_argument("image")
    resetting.add_argument("--isolation", choices=["auto", "kvm", "container", "emulated"], default=None)
    resetting.add_argument(
        "--network", choices=["mirror", "none", "repository", "open"], default="mirror", help="what it may reach"
    )
    running = guest.verb("exec", execute, "run a command in a guest", "cleanroom guest exec NAME -- uname -a")
    running.add_argument("name")
    running.add_argument("--timeout", type=float, default=3600.0, metavar="S", help="limit in seconds")
    running.add_argument("--user", default="root")
    running.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND...")
    checking = guest.verb("verify", verify, "compare a guest with its image", "cleanroom guest verify NAME")
    checking.add_argument("name")
    ending = guest.verb("destroy", destroy, "end a guest; nothing of it stays", "cleanroom guest destroy NAME")
    ending.add_argument("name")


def list_all(context: Context, _: argparse.Namespace) -> None:
    """Show all guests of this installation."""
    rows = [
        {
            "name": record.name,
            "image": record.image,
            "digest": record.digest,
            "isolation": record.isolation,
            "network": record.network,
            "address": record.address,
            "state": record.state,
            "started_at": record.started_at,
            "reset_seconds": record.reset_seconds,
        }
        for record in Host(context.settings).guests()
    ]
    context.rows(rows, COLUMNS, "no guests")


def reset(context: Context, arguments: argparse.Namespace) -> None:
    """Start a guest that stays until it is destroyed."""
    isolation = arguments.isolation or context.settings.text("worker.isolation")
    host = Host.open(context.settings)
    guest = host.reset(arguments.image, isolation=isolation, network=arguments.network, observer=context.progress)
    context.emit(
        {
            "name": guest.name,
            "image": guest.image,
            "digest": guest.digest,
            "isolation": guest.isolation,
            "reset_seconds": guest.reset_seconds,
            "address": guest.address,
        },
        f"{guest.name} is ready after {guest.reset_seconds:.2f} s ({guest.isolation}, {guest.address})\n"
        f"  cleanroom guest exec {guest.name} -- COMMAND",
    )
    host.close()


def execute(context: Context, arguments: argparse.Namespace) -> int:
    """Run a command; its output and its exit status become ours."""
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise InputError("no command was given", hint="cleanroom guest exec NAME -- COMMAND...")
    guest = Host.open(context.settings).guest(arguments.name)
    if context.as_json:
        done = guest.run(command, timeout=arguments.timeout, user=arguments.user)
        context.emit(
            {
                "exit_status": done.exit_status,
                "stdout": done.text,
                "stderr": done.stderr.decode(errors="replace"),
                "seconds": round(done.seconds, 3),
            }
        )
    else:
        done = guest.run(command, timeout=arguments.timeout, user=arguments.user, output=_show)
    return done.exit_status


def _show(chunk: bytes) -> None:
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def verify(context: Context, arguments: argparse.Namespace) -> int:
    """Exit status 0 when the guest is identical with its image; otherwise 1 and the differences."""
    found = Host.open(context.settings).verify(arguments.name)
    shown = "\n".join(found) or f"{arguments.name} is identical with its image"
    context.emit({"name": arguments.name, "identical": not found, "differences": found}, shown)
    return 1 if found else 0


def destroy(context: Context, arguments: argparse.Namespace) -> None:
    """End a guest; it is no error when it is gone already."""
    Host.open(context.settings).destroy(arguments.name)
    context.emit({"destroyed": arguments.name}, f"{arguments.name} is gone")

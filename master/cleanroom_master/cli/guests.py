"""`cleanroom guest`: disposable guests on this host, for people."""

from __future__ import annotations

import argparse
import contextlib
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from cleanroom_base import run
from cleanroom_base.errors import InputError
from cleanroom_master.cli.frame import Commands, Context, harmless
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
    entering = guest.verb("shell", shell, "step into a guest", "cleanroom guest shell NAME --user builder")
    entering.add_argument("name")
    entering.add_argument("--user", default="root")
    watching = guest.verb(
        "console",
        console,
        "show what a guest printed on its console, or sit down at it",
        "cleanroom guest console NAME --follow",
        about="At a terminal: what is typed goes to the guest's console, and what the guest prints comes here as it\n"
        "is; leave with Ctrl-]. Nobody asks for a login there: that is `cleanroom guest shell`.\n"
        "Into a file or pipe, or with --follow: what was printed so far, made harmless. A virtual machine boots\n"
        "quietly or not at all; its journal says more: cleanroom guest exec NAME -- journalctl --boot",
    )
    watching.add_argument("name")
    watching.add_argument("--follow", action="store_true", help="go on until the guest ends")
    copying = guest.verb(
        "copy",
        copy,
        "copy files into a guest, or out of it",
        "cleanroom guest copy fix.patch NAME:/tmp/fix.patch",
    )
    copying.add_argument("source", metavar="SOURCE", help="a path here, or NAME:PATH in a guest")
    copying.add_argument("destination", metavar="DESTINATION", help="the same; one of both is in a guest")
    checking = guest.verb("verify", verify, "compare a guest with its image", "cleanroom guest verify NAME")
    checking.add_argument("name")
    keeping = guest.verb(
        "snapshot",
        snapshot,
        "keep the state of a guest to go back to, list what is kept, or remove one",
        "cleanroom guest snapshot NAME before-the-upgrade",
        about="Of a virtual machine memory and disk are kept, of a container its files. The guest stands still\n"
        "meanwhile. Without SNAPSHOT all that are kept are listed. They go with the guest.",
    )
    keeping.add_argument("name")
    keeping.add_argument("snapshot", nargs="?", metavar="SNAPSHOT", help="a name for it")
    keeping.add_argument("--remove", metavar="SNAPSHOT", help="forget this one")
    returning = guest.verb(
        "rollback",
        rollback,
        "have a guest be what it was at a snapshot",
        "cleanroom guest rollback NAME before-the-upgrade",
        about="A virtual machine goes on where it was; only its clock is set. A container is started anew from the\n"
        "files that were kept: what ran in it does not run any more. Name, keys and address stay.",
    )
    returning.add_argument("name")
    returning.add_argument("snapshot", metavar="SNAPSHOT")
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
    host = Host(context.settings)
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
    guest = Host(context.settings).guest(arguments.name)
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


def shell(context: Context, arguments: argparse.Namespace) -> None:
    """Become an interactive shell in a guest; its exit status becomes ours."""
    run.replace(Host(context.settings).guest(arguments.name).interactive(arguments.user))


def console(context: Context, arguments: argparse.Namespace) -> None:
    """Sit down at a guest's console, or show what was printed on it."""
    found = Host(context.settings).console(arguments.name)
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if at_terminal and not arguments.follow and not context.as_json:
        context.progress(f"at the console of {arguments.name}; leave with Ctrl-]")
        found.attach(sys.stdin.fileno())
        context.progress(f"left the console of {arguments.name}")
        return
    if context.as_json:
        context.emit({"name": arguments.name, "printed": "".join(harmless(found.printed(follow=arguments.follow)))})
        return
    with contextlib.suppress(KeyboardInterrupt):
        for text in harmless(found.printed(follow=arguments.follow)):
            sys.stdout.write(text)
            sys.stdout.flush()


def copy(context: Context, arguments: argparse.Namespace) -> None:
    """Copy a file, or what is in a directory. What comes out is regular files only, at most the artifacts' limit."""
    source, destination = _place(arguments.source), _place(arguments.destination)
    if (source.guest is None) == (destination.guest is None):
        raise InputError("one of both is to be in a guest", hint="a path in a guest is written NAME:PATH")
    guest = Host(context.settings).guest(source.guest or destination.guest or "")
    if source.guest is None:
        guest.copy_in(Path(source.path), destination.path)
        context.emit({"copied": [source.path]}, f"copied {source.path} to {arguments.destination}")
        return
    target = Path(destination.path)
    target.mkdir(parents=True, exist_ok=True)
    limit = context.settings.whole("worker.artifact_limit")
    files = [str(file) for file in guest.copy_out(source.path, target, limit=limit)]
    context.emit({"copied": files}, "\n".join(files) or "there was nothing to copy")


@dataclass(frozen=True)
class _Place:
    """A path, in a guest or here."""

    guest: str | None
    path: str


def _place(text: str) -> _Place:
    """Read `NAME:/PATH`, a path in a guest, or a path here (with a slash before its first colon, if it has one)."""
    guest, colon, path = text.partition(":")
    if not colon or "/" in guest:
        return _Place(None, text)
    if not path.startswith("/"):
        raise InputError(f"{text!r}: the path in a guest begins with a slash", hint="NAME:/PATH")
    return _Place(guest, path)


def verify(context: Context, arguments: argparse.Namespace) -> int:
    """Exit status 0 when the guest is identical with its image; otherwise 1 and the differences."""
    found = Host(context.settings).verify(arguments.name)
    shown = "\n".join(found) or f"{arguments.name} is identical with its image"
    context.emit({"name": arguments.name, "identical": not found, "differences": found}, shown)
    return 1 if found else 0


def snapshot(context: Context, arguments: argparse.Namespace) -> None:
    """Keep the state of a guest, list what is kept of it, or remove one."""
    if arguments.snapshot is not None and arguments.remove is not None:
        raise InputError("a snapshot is either made or removed", hint="cleanroom guest snapshot --help")
    with Host(context.settings).saved_states(arguments.name) as states:
        if arguments.remove is not None:
            states.remove(arguments.remove)
            context.emit({"removed": arguments.remove}, f"{arguments.remove} is gone")
        elif arguments.snapshot is not None:
            kept = asdict(states.keep(arguments.snapshot))
            text = f"{arguments.snapshot} is kept\n  cleanroom guest rollback {arguments.name} {arguments.snapshot}"
            context.emit({"guest": arguments.name, **kept}, text)
        else:
            context.rows([asdict(state) for state in states.all()], ["name", "made_at", "size"], "no snapshots")


def rollback(context: Context, arguments: argparse.Namespace) -> None:
    """Have a guest be what it was at a snapshot."""
    with Host(context.settings).saved_states(arguments.name) as states:
        seconds = states.roll_back(arguments.snapshot)
    context.emit(
        {"guest": arguments.name, "name": arguments.snapshot, "seconds": seconds},
        f"{arguments.name} is what it was at {arguments.snapshot}, after {seconds:.2f} s",
    )


def destroy(context: Context, arguments: argparse.Namespace) -> None:
    """End a guest; it is no error when it is gone already."""
    Host.open(context.settings).destroy(arguments.name)
    context.emit({"destroyed": arguments.name}, f"{arguments.name} is gone")

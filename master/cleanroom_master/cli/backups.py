"""`cleanroom backup` and `cleanroom restore`: all that the record has and names, in one file."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path

from cleanroom_base.errors import InputError
from cleanroom_master.backup import archive, making, restoring
from cleanroom_master.backup.archive import Progress
from cleanroom_master.cli.frame import Commands, Context

_EVERY = 1.0


def register(commands: Commands) -> None:
    """Declare the commands."""
    backup = commands.verb(
        "backup",
        create_or_verify,
        "write the record and all files that it names into one file, also while everything runs; or verify such a file",
        "cleanroom backup /backup/monday.cleanroom --with-keys --passphrase-file /root/passphrase",
    )
    backup.usage = (
        "cleanroom backup [-h] [--format {table,json}] [--with-keys --passphrase-file F] FILE\n"
        "       cleanroom backup [-h] [--format {table,json}] verify FILE"
    )
    backup.add_argument("words", nargs="+", metavar="FILE", help="where to; after the word verify: what to verify")
    backup.add_argument("--with-keys", action="store_true", help="also the signing keys, encrypted")
    backup.add_argument("--passphrase-file", type=Path, metavar="F", help="its first line encrypts the keys")
    putting = commands.verb(
        "restore",
        restore,
        "put a backup back on an empty machine",
        "cleanroom restore /backup/monday.cleanroom --passphrase-file /root/passphrase",
    )
    putting.add_argument("file", type=Path, metavar="FILE")
    putting.add_argument("--passphrase-file", type=Path, metavar="F", help="also put the signing keys back")
    putting.add_argument("--force", action="store_true", help="replace a state that is not empty, for good")


def create_or_verify(context: Context, arguments: argparse.Namespace) -> None:
    """Write a backup, or verify one."""
    match arguments.words:
        case ["verify", file]:
            verify(context, Path(file))
        case [file]:
            create(context, arguments, Path(file))
        case words:
            raise InputError(f"one file is needed, not {' '.join(words)!r}", hint="cleanroom backup --help")


def create(context: Context, arguments: argparse.Namespace, file: Path) -> None:
    """Write a backup."""
    if arguments.with_keys != (arguments.passphrase_file is not None):
        raise InputError("--with-keys and --passphrase-file go together: keys leave this machine encrypted only")
    made = making.make(
        context.settings,
        context.database,
        file.absolute(),
        passphrase=arguments.passphrase_file,
        progress=_progress(),
    )
    lines = [
        f"{made.file}: {made.files} files, {made.size / 1048576:.1f} MiB, generation {made.generation or '-'},"
        f" signing keys {'encrypted in it' if made.keys else 'not in it'}"
    ]
    if made.missing:
        lines.append(f"warning: {made.missing} files that the record names are not there, and so not in it")
    context.emit(asdict(made), "\n".join(lines))


def verify(context: Context, file: Path) -> None:
    """Exit status 0 the file is a complete backup, as it was written; 2 it is not."""
    about = archive.verify(file, _progress())
    context.emit(
        {"file": file, "complete": True, "about": about},
        f"{file} is complete: of {about['host']}, {about['made_at']}, schema {about['schema']},"
        f" generation {about['generation'] or '-'}, {'with' if about['keys'] else 'without'} signing keys",
    )


def restore(context: Context, arguments: argparse.Namespace) -> None:
    """Put a backup back."""
    done = restoring.restore(
        context.settings,
        arguments.file,
        passphrase=arguments.passphrase_file,
        force=arguments.force,
        progress=_progress(),
    )
    following = [
        f"put the site directory back ({context.settings.site}: cleanroom.toml, notifications.toml, recipes)",
        *([] if done.keys else ["put the signing keys back (publisher/gnupg in the state), or rotate them --lost"]),
        "cleanroom up --detach",
        "cleanroom image build NAME, for each image that recipes name",
        "cleanroom repository verify",
        "consumers that saw a later state of the repository see this one once the next generation is published",
    ]
    context.emit(
        {"about": done.about, "files": done.files, "keys": done.keys, "migrated": done.migrated, "next": following},
        "\n".join(
            [f"{done.files} files and the record are back on {context.settings.state}; now:", *_listed(following)]
        ),
    )


def _listed(lines: list[str]) -> list[str]:
    return [f"  {number}. {line}" for number, line in enumerate(lines, 1)]


def _progress() -> Progress:
    """Tells a person at a terminal how far it is, in one line that changes."""
    if not sys.stderr.isatty():
        return lambda *_: None
    last = time.monotonic()

    def tell(size: int, name: str) -> None:
        nonlocal last
        if time.monotonic() - last > _EVERY:
            last = time.monotonic()
            sys.stderr.write(f"\r\x1b[K{size / 1048576:.0f} MiB, {name[-60:]}")
            sys.stderr.flush()

    return tell

"""Makes a backup while everything runs: the record first, in one snapshot, then the files that it names.

Why they fit: a file is there before a row names it, and is never changed after that, so whatever the snapshot names is
there as long as nobody removes it. Whoever removes files (the publisher's collection of garbage, housekeeping) does
nothing while a backup is being made: both hold one lock. What came after the snapshot may be copied too; no row names
it, and the next housekeeping takes it away.

The repository's `current` is not copied but written as the snapshot says, and generations that came later are left out:
else the repository could be ahead of its record. A generation that was being made is then one that was never shown, as
after a kill, and its releases wait for publication again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.run import run
from cleanroom_base.settings import Settings
from cleanroom_db import cluster
from cleanroom_db import snapshot as record
from cleanroom_db.connection import Database
from cleanroom_master.backup import archive
from cleanroom_master.backup.archive import Progress, Writer
from cleanroom_master.files import FileStore
from cleanroom_master.logs import LogStore
from cleanroom_master.places import Places
from cleanroom_master.stores import no_removal

# A dump of a large record on a slow disk may take hours, in seconds.
_LONGEST = 86_400.0
_GPG_SECONDS = 120.0
# What of a GnuPG home is no key: sockets, locks, random seeds.
_NO_KEY = ("S.", ".#", "random_seed", "reader_")


@dataclass(frozen=True)
class Made:
    """A backup that was made. `missing`: files that rows name and that are not there."""

    file: Path
    files: int
    size: int
    generation: int | None
    missing: int
    keys: bool
    sha256: str


def make(settings: Settings, database: Database, file: Path, *, passphrase: Path | None, progress: Progress) -> Made:
    """Write a backup to `file`, which must not be there; with a file with a passphrase, the signing keys are in it.

    It is written beside and renamed. Raises InputError, InfrastructureError.
    """
    if file.exists():
        raise InputError(f"{file} is there already", hint="name another file, or remove it")
    if not file.parent.is_dir():
        raise InputError(f"there is no directory {file.parent}")
    places = Places(settings)
    keys = None if passphrase is None else _keys(places.signing, passphrase)
    partial = file.with_name(f"{file.name}.part")
    with contextlib.ExitStack() as undone, _reported(file):
        undone.callback(partial.unlink, missing_ok=True)
        # Beside the backup, where there is room for it.
        scratch = Path(undone.enter_context(tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}.")))
        undone.enter_context(no_removal(settings.state))
        with (
            _private(partial) as stream,
            record.taken(database) as taken,
            Writer(stream, scratch, progress) as writer,
        ):
            _write(settings, places, writer, scratch, taken, keys)
            missing = _missing(places, taken)
            digest = writer.close()
            stream.flush()
            os.fsync(stream.fileno())
        partial.rename(file)
    return Made(file, writer.files, writer.size, taken.generation, missing, keys is not None, digest)


def _write(
    settings: Settings, places: Places, writer: Writer, scratch: Path, taken: record.Snapshot, keys: bytes | None
) -> None:
    writer.text(archive.ABOUT, json.dumps(_about(taken, keys=keys is not None), indent=1).encode())
    dump = scratch / "dump"
    cluster.dump(settings, dump, snapshot=taken.name, timeout=_LONGEST)
    writer.file(dump, archive.DATABASE)
    dump.unlink()
    if keys is not None:
        writer.text(archive.KEYS, keys)
    for path in _named(places, taken.generation):
        writer.file(path, f"{archive.STATE}/{path.relative_to(settings.state)}")
    if taken.generation is not None:
        current = (places.published / "current").relative_to(settings.state)
        writer.link(f"{archive.STATE}/{current}", f"generations/{taken.generation}", time.time())


def _about(taken: record.Snapshot, *, keys: bool) -> dict[str, Any]:
    return {
        "format": archive.FORMAT,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "made_by": f"cleanroom {metadata.version('cleanroom')}",
        "host": socket.gethostname(),
        "schema": taken.schema,
        "server": taken.server,
        "generation": taken.generation,
        "keys": keys,
    }


def _named(places: Places, generation: int | None) -> Iterator[Path]:
    """The files of the state that rows may name, each directory in order."""
    yield from _walk(places.logs, lambda path: path.suffix in (".gz", ".index"))
    yield from _walk(places.artifacts, lambda path: len(path.name) == 64)
    published = places.published
    # The pool first: all other names of its files are links to it then.
    for name in ("pool", "facts", "attached", "files"):
        yield from _walk(published / name, lambda path: not path.name.startswith("."))
    shown = [path for path in (published / "generations").glob("*") if path.name.isdecimal()]
    for directory in sorted(shown, key=lambda path: int(path.name)):
        if generation is not None and int(directory.name) <= generation:
            yield from _walk(directory, lambda _: True)


def _walk(directory: Path, wanted: Callable[[Path], bool]) -> Iterator[Path]:
    """Files and symbolic links below a directory; what is on its way (hidden, or growing) is left out."""
    for inside, directories, files in os.walk(directory):
        links = [name for name in directories if Path(inside, name).is_symlink()]
        directories[:] = sorted(
            name for name in directories if name not in links and name != "growing" and not name.startswith(".")
        )
        for name in sorted([*files, *links]):
            path = Path(inside, name)
            if path.is_symlink() or wanted(path):
                yield path


def _missing(places: Places, taken: record.Snapshot) -> int:
    """How many files that the snapshot names are not there: whoever restores should know that nobody had them."""
    logs, files = LogStore(places.logs), FileStore(places.artifacts)
    return sum(not logs.path(one).exists() for one in taken.logs()) + sum(
        not files.path(one).exists() for one in taken.artifacts()
    )


def _keys(home: Path, passphrase: Path) -> bytes:
    """The publisher's GnuPG home, encrypted with a passphrase. Raises InputError, InfrastructureError."""
    if not passphrase.is_file() or not passphrase.read_text(encoding="utf-8").strip():
        raise InputError(f"{passphrase} has no passphrase in its first line")
    if not home.is_dir():
        raise InputError(f"there are no signing keys: {home} is not there")
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "keys.tar"
        plain.touch(mode=0o600)
        with tarfile.open(plain, "w") as tar:
            for path in sorted(home.rglob("*")):
                if path.is_file() and not path.name.startswith(_NO_KEY) and not path.name.endswith((".lock", "~")):
                    tar.add(path, str(path.relative_to(home)))
        gpg_home = Path(scratch) / "gpg"
        gpg_home.mkdir(mode=0o700)
        try:
            return gpg(gpg_home, passphrase, "--symmetric", "--cipher-algo", "AES256", plain)
        finally:
            run(["gpgconf", "--homedir", gpg_home, "--kill", "gpg-agent"], timeout=_GPG_SECONDS, check=False)


def gpg(home: Path, passphrase: Path, *what: str | Path) -> bytes:
    """What gpg prints for a file that it encrypts or decrypts with a passphrase. Raises CommandError."""
    command: list[str | Path] = [
        "gpg",
        "--homedir",
        home,
        "--batch",
        "--quiet",
        "--no-symkey-cache",
        "--pinentry-mode",
        "loopback",
    ]
    return run([*command, "--passphrase-file", passphrase, "--output", "-", *what], timeout=_GPG_SECONDS).stdout


def _private(file: Path) -> IO[bytes]:
    """A new file for its owner alone: a backup has what the record has."""
    file.unlink(missing_ok=True)
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


@contextlib.contextmanager
def _reported(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(file.parent).free >> 20
        raise InfrastructureError(
            f"the backup {file} could not be written: {error.strerror or error}",
            hint=f"{free} MiB are free there; nothing is left of what was begun",
        ) from error

"""Puts a backup back on an empty machine: all of it is verified first, then files, then the record, then keys.

A mark says that a restore was begun; while it is there nothing starts on this state, and another restore begins anew.
So one that was killed at any point harms nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cleanroom_base.errors import CleanroomError, InfrastructureError, InputError
from cleanroom_base.run import CommandError, run
from cleanroom_base.settings import Settings
from cleanroom_db import cluster, migrate
from cleanroom_db.roles import Role
from cleanroom_master import supervisor
from cleanroom_master.backup import archive
from cleanroom_master.backup.archive import Damaged, Member, Progress
from cleanroom_master.backup.making import gpg
from cleanroom_master.places import Places

_LONGEST = 86_400.0
_GPG_SECONDS = 120.0
_PIECE = 1 << 20
_WHOLE = ("logs", "artifacts", "repository")


@dataclass(frozen=True)
class Restored:
    """What was put back. `keys`: the signing keys too; `migrated`: the steps of the schema that came since."""

    about: dict[str, Any]
    files: int
    keys: bool
    migrated: list[str]


def restore(settings: Settings, file: Path, *, passphrase: Path | None, force: bool, progress: Progress) -> Restored:
    """Put a backup back.

    Raises InputError for a state that is not empty (unless `force`), Damaged for a file that is no complete backup,
    InfrastructureError.
    """
    if supervisor.running(settings) is not None:
        raise InputError(f"Cleanroom runs on {settings.state}", hint="cleanroom down")
    about = archive.verify(file, progress)
    if about["schema"] > migrate.migrations()[-1].number:
        raise InputError(
            f"the backup is of schema {about['schema']}, this version knows {migrate.migrations()[-1].number}",
            hint="install the version that made it, or a later one",
        )
    if passphrase is not None and not about["keys"]:
        raise InputError("the backup has no signing keys", hint="leave --passphrase-file out")
    mark = supervisor.restore_mark(settings)
    if not force and not mark.exists():
        _require_empty(settings)
    with _trouble(settings):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        files = _put_back(settings, file, passphrase, progress)
        migrated = migrate.migrate(settings)
        # All of it is on the disk before the mark goes that says otherwise.
        os.sync()
        mark.unlink()
    return Restored(about, files, passphrase is not None, migrated)


def _require_empty(settings: Settings) -> None:
    """Raise InputError where there is something that a restore would replace."""
    there = [name for name in _WHOLE if _holds_files(settings.state / name)]
    if cluster.is_private(settings):
        there += ["a database cluster"] if (settings.state / "postgresql/data").exists() else []
    elif _has_record(settings):
        there.append("a record in its database")
    if there:
        raise InputError(
            f"the state {settings.state} is not empty: it has {', '.join(there)}",
            hint="set CLEANROOM_STATE to another place; --force replaces what is there for good",
        )


def _holds_files(directory: Path) -> bool:
    return any(files for _, _, files in os.walk(directory))


def _has_record(settings: Settings) -> bool:
    database = cluster.open_database(settings, Role.OWNER)
    try:
        with database.transaction() as cursor:
            return cursor.value("SELECT to_regclass('cleanroom.migration')") is not None
    finally:
        database.close()


def _put_back(settings: Settings, file: Path, passphrase: Path | None, progress: Progress) -> int:
    for name in _WHOLE:
        shutil.rmtree(settings.state / name, ignore_errors=True)
    cluster.ensure(settings)
    number = size = 0
    with tempfile.TemporaryDirectory(dir=settings.state, prefix=".restore-") as scratch:
        dump = Path(scratch) / "dump"
        for member, content in archive.members(file):
            if member.name.startswith(f"{archive.STATE}/"):
                _place(settings.state, member, content)
            elif member.name == archive.DATABASE and content is not None:
                _copy(content, dump)
            elif member.name == archive.KEYS and content is not None and passphrase is not None:
                _put_back_keys(Places(settings).signing, content.read(), passphrase, Path(scratch))
            number, size = number + 1, size + member.size
            progress(size, member.name)
        cluster.restore(settings, dump, timeout=_LONGEST)
    return number


def _place(state: Path, member: Member, content: IO[bytes] | None) -> None:
    """Make a file of the state as it was."""
    place = state / member.name.removeprefix(f"{archive.STATE}/")
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if place.resolve().parent != place.parent.resolve() or not place.parent.resolve().is_relative_to(state.resolve()):
        raise Damaged(f"a backup has no such name: {member.name}")
    if member.hard:
        os.link(state / str(member.target).removeprefix(f"{archive.STATE}/"), place, follow_symlinks=False)
        return
    if content is None:
        place.symlink_to(str(member.target))
        return
    _copy(content, place)
    place.chmod(member.mode)
    os.utime(place, (member.modified, member.modified))


def _copy(content: IO[bytes], place: Path) -> None:
    with place.open("xb") as sink:
        while piece := content.read(_PIECE):
            sink.write(piece)


def _put_back_keys(home: Path, sealed: bytes, passphrase: Path, scratch: Path) -> None:
    """The publisher's GnuPG home as it was. Raises InputError for another passphrase."""
    own = scratch / "gpg"
    own.mkdir(mode=0o700)
    encrypted = scratch / "keys"
    encrypted.write_bytes(sealed)
    try:
        plain = gpg(own, passphrase, "--decrypt", encrypted)
    except CommandError as error:
        raise InputError("the signing keys cannot be decrypted with this passphrase") from error
    finally:
        run(["gpgconf", "--homedir", own, "--kill", "gpg-agent"], timeout=_GPG_SECONDS, check=False)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700, parents=True)
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        for info in tar:
            source = tar.extractfile(info)
            place = home / archive.safe(info.name)
            if source is not None:
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _copy(source, place)
                place.chmod(0o600)


@contextlib.contextmanager
def _trouble(settings: Settings) -> Iterator[None]:
    """What goes wrong half way can be begun again, and that is said."""
    hint = f"mend it and restore again; until then nothing starts on {settings.state}"
    try:
        yield
    except (OSError, tarfile.TarError) as error:
        raise InfrastructureError(f"the backup could not be put back: {error}", hint=hint) from error
    except CleanroomError as error:
        error.hint = error.hint or hint
        raise

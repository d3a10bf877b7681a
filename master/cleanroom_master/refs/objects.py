"""Objects of a mirror: tags, commits and files, read with GitPython. The one module that imports it.

What stands in an object was written by somebody outside: it may be badly made, or endless.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TypeVar

import git
from git.objects import Blob, Commit, TagObject
from git.objects.base import Object

from cleanroom_base.errors import InputError
from cleanroom_db.ref_events import RefDetails
from cleanroom_db.states import SignatureState, TagKind
from cleanroom_master.refs import signatures

OBJECT_LIMIT = 1024 * 1024
_NESTED_TAGS = 10
_PLAIN = (0o100644, 0o100755)

Read = TypeVar("Read")


@dataclass(frozen=True)
class Objects:
    """The objects of one repository; `keyring` holds the keys whose signatures count."""

    repository: git.Repo
    keyring: Path | None

    def tag(self, object_id: str, name: str) -> RefDetails:
        """What a tag of this name says that points to this object. Raises InputError if it leads to no commit."""

        def read() -> RefDetails:
            found = self._get(object_id)
            commit = _commit(found)
            if not isinstance(found, TagObject):
                return RefDetails(commit.hexsha, TagKind.LIGHTWEIGHT, signature=SignatureState.NONE)
            raw = self.repository.odb.stream(found.binsha).read()
            return RefDetails(
                commit.hexsha,
                TagKind.ANNOTATED,
                tagger=f"{found.tagger.name} <{found.tagger.email}>" if found.tagger else None,
                message=signatures.unsigned(found.message).strip(),
                signature=signatures.check(raw, name, self.keyring),
                tagged_at=_time(found.tagged_date, found.tagger_tz_offset) if found.tagger else None,
            )

        return self._read(f"the tag {name}", read)

    def commit(self, commit: str) -> RefDetails:
        """What a commit says about itself. Raises InputError if it is none."""

        def read() -> RefDetails:
            found = _commit(self._get(commit))
            message = found.message if isinstance(found.message, str) else found.message.decode(errors="replace")
            return RefDetails(
                found.hexsha,
                TagKind.NONE,
                tagger=f"{found.committer.name} <{found.committer.email}>",
                message=message.strip(),
                tagged_at=_time(found.committed_date, found.committer_tz_offset),
            )

        return self._read(f"the commit {commit}", read)

    def file(self, commit: str, path: str, *, most: int) -> bytes | None:
        """A plain file of a commit's tree, None if there is none. Raises InputError above `most` bytes."""

        def read() -> bytes | None:
            try:
                entry = _commit(self._get(commit)).tree / path
            except KeyError:
                return None
            if not isinstance(entry, Blob) or entry.mode not in _PLAIN:
                raise InputError(f"{path} is not a plain file")
            if entry.size > most:
                raise InputError(f"{path} has {entry.size} bytes, {most} are the limit")
            return bytes(entry.data_stream.read())

        return self._read(f"{path} of {commit}", read)

    def _read(self, what: str, read: Callable[[], Read]) -> Read:
        """What `read` says, asked again of a fresh git before an object is blamed.

        GitPython keeps a git that answers it; one that was killed looks to it like an object that is badly written.
        """
        try:
            with _readable(what):
                return read()
        except (InputError, OSError):
            self.repository.git.clear_cache()
        with _readable(what):
            return read()

    def _get(self, object_id: str) -> Object:
        name = bytes.fromhex(object_id)
        size = self.repository.odb.info(name).size
        if size > OBJECT_LIMIT:
            raise InputError(f"it has {size} bytes, {OBJECT_LIMIT} are the limit")
        return Object.new_from_sha(self.repository, name)


@contextlib.contextmanager
def opened(path: Path, environment: Mapping[str, str], keyring: Path | None) -> Iterator[Objects]:
    """The objects of the bare repository at `path`; `environment` is for the git that reads them."""
    with git.Repo(path) as repository:
        repository.git.update_environment(**environment)
        yield Objects(repository, keyring)


@contextlib.contextmanager
def _readable(what: str) -> Iterator[None]:
    """GitPython answers objects that are missing or badly written with all kinds of exceptions."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError, git.GitError) as error:
        raise InputError(f"{what} cannot be read: {error or type(error).__name__}") from error


def _commit(found: object) -> Commit:
    """The commit that an object leads to. Raises InputError."""
    for _ in range(_NESTED_TAGS):
        if not isinstance(found, TagObject):
            break
        found = found.object
    if isinstance(found, Commit):
        return found
    raise InputError(f"it points to a {getattr(found, 'type', 'thing')}, not to a commit")


def _time(seconds: float, west: float) -> datetime:
    """A time of git's; `west` is the distance of its zone from UTC in seconds, positive to the west."""
    return datetime.fromtimestamp(seconds, timezone(timedelta(seconds=-west)))

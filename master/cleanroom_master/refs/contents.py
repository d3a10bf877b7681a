"""Looks into recorded commits: a file of one, and its time. Reads the mirrors by git's plumbing, changes nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from cleanroom_base import run
from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.settings import Settings

_TIMEOUT = 60.0
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# Nothing of the host's or the user's configuration may change what is read.
_ENVIRONMENT = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0"}


def read_file(settings: Settings, product: str, commit: str, path: str, *, limit: int) -> bytes | None:
    """The content of a file at the root of a commit; None if there is none or it is no plain file.

    Raises InputError when it is larger than `limit` bytes, InfrastructureError when the mirror lacks the commit.
    """
    entry = _git(settings, product, "ls-tree", "-l", "--end-of-options", _checked(commit), "--", path).stdout
    if not entry:
        return None
    mode, kind, identity, size = entry.split(b"\t", 1)[0].split()
    if kind != b"blob" or not mode.startswith(b"100"):
        return None
    if int(size) > limit:
        raise InputError(f"{path} is larger than {limit} bytes")
    return _git(settings, product, "cat-file", "blob", identity.decode()).stdout


def commit_time(settings: Settings, product: str, commit: str) -> datetime:
    """When a commit was made, in UTC. Raises InfrastructureError when the mirror lacks it."""
    shown = _git(settings, product, "show", "-s", "--format=%ct", "--end-of-options", _checked(commit)).text
    return datetime.fromtimestamp(int(shown.strip()), UTC)


def _git(settings: Settings, product: str, *words: str) -> run.Completed:
    mirror: Path = settings.state / "mirrors" / f"{product}.git"
    try:
        return run.run(["git", f"--git-dir={mirror}", *words], timeout=_TIMEOUT, environment=_ENVIRONMENT)
    except run.CommandError as error:
        raise InfrastructureError(f"the mirror of {product} could not be read") from error


def _checked(commit: str) -> str:
    if not _COMMIT.fullmatch(commit):
        raise InputError(f"{commit!r} is not the id of a commit")
    return commit

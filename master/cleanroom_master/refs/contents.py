"""Looks into recorded commits: a file of one, and its time."""

from __future__ import annotations

from datetime import UTC, datetime

from cleanroom_base.settings import Settings
from cleanroom_master.refs.sources import mirror_with


def read_file(settings: Settings, product: str, commit: str, path: str, *, limit: int) -> bytes | None:
    """The content of a plain file of a commit; None if there is none.

    Raises InputError when it is no plain file (a link, for example) or larger than `limit` bytes,
    InfrastructureError when the commit is not to be had.
    """
    with mirror_with(settings, product, commit).objects() as objects:
        return objects.file(commit, path, most=limit)


def commit_time(settings: Settings, product: str, commit: str) -> datetime:
    """When a commit was made, in UTC. Raises InfrastructureError when the commit is not to be had."""
    with mirror_with(settings, product, commit).objects() as objects:
        made = objects.commit(commit).tagged_at
    assert made is not None
    return made.astimezone(UTC)

"""The source of a release: exactly the recorded commit, for whoever builds it, in any process."""

from __future__ import annotations

import os
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import Settings
from cleanroom_master.refs.mirror import Mirror


class CommitAway(InfrastructureError):
    """A recorded commit is not in the mirror, and the repository does not give it."""


def mirror_with(settings: Settings, product: str, commit: str) -> Mirror:
    """The product's mirror with the commit in it, fetched if need be. Raises InfrastructureError."""
    mirror = Mirror.of(settings, product)
    if not mirror.keeps(commit) and not mirror.keep_commit(commit):
        raise CommitAway(f"the repository {mirror.url} does not give the commit {commit}")
    return mirror


def archive(settings: Settings, product: str, commit: str, destination: Path) -> Path:
    """Write the tree of a commit to `destination` as a tar archive without a leading directory.

    The archive is there whole or not at all, and the same commit gives the same bytes.
    Raises InfrastructureError.
    """
    mirror = mirror_with(settings, product, commit)
    fresh = destination.with_name(f"{destination.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            mirror.archive(commit, file)
        return fresh.replace(destination)
    finally:
        fresh.unlink(missing_ok=True)

"""The source of a release: exactly the recorded commit, for whoever builds it, in any process."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import Settings
from cleanroom_db.products import Product
from cleanroom_master.refs.mirror import Mirror

FILE_LIMIT = 1024 * 1024


class CommitAway(InfrastructureError):
    """A recorded commit is not in the mirror, and the repository does not give it."""


def archive(settings: Settings, product: Product, commit: str, destination: Path) -> Path:
    """Write the tree of a commit to `destination` as a tar archive without a leading directory.

    The archive is there whole or not at all, and the same commit gives the same bytes.
    Raises InfrastructureError.
    """
    mirror = _mirror(settings, product, commit)
    fresh = destination.with_name(f"{destination.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            mirror.archive(commit, file)
        return fresh.replace(destination)
    finally:
        fresh.unlink(missing_ok=True)


def read_file(settings: Settings, product: Product, commit: str, path: str) -> bytes | None:
    """A plain file of a commit's tree, such as `cleanroom.toml`; None if there is none.

    Raises InputError for a link or a file of more than a MiB, InfrastructureError without the commit.
    """
    with _mirror(settings, product, commit).objects() as objects:
        return objects.file(commit, path, most=FILE_LIMIT)


def commit_time(settings: Settings, product: Product, commit: str) -> datetime:
    """When a commit was made. Raises InfrastructureError without the commit."""
    with _mirror(settings, product, commit).objects() as objects:
        made = objects.commit(commit).tagged_at
    assert made is not None
    return made


def _mirror(settings: Settings, product: Product, commit: str) -> Mirror:
    """The product's mirror, with the commit in it."""
    mirror = Mirror(settings, product.name, product.url)
    if not mirror.keep_commit(commit):
        raise CommitAway(f"the repository {product.url} does not give the commit {commit}")
    return mirror

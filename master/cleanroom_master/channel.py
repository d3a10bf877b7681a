"""The published channel as guests get it: what there is of it on the disk, and the key that signs it."""

from __future__ import annotations

from pathlib import Path

from cleanroom_recipes.request import Repository


def published(directory: Path, channel: str, image: str) -> Repository | None:
    """What the repository in `directory` has now for an image; None while it has nothing, which is no error."""
    # Resolved once: key and indexes are of one generation, whatever is switched to meanwhile.
    current = (directory / "current").resolve()
    apt = (current / "apt/dists" / channel / image).is_dir()
    yum = (current / "yum" / image / channel / "repodata").is_dir()
    if not (apt or yum):
        return None
    key, retired = current / "keys/cleanroom.asc", current / "keys/retired.asc"
    signed_once = retired.read_text(encoding="ascii") if retired.exists() else ""
    return Repository(channel, key.read_text(encoding="ascii"), apt, yum, signed_once)

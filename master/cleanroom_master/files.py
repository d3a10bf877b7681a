"""Files by the hash of their content: artifacts/ab/abcdef... Once there, a file is never changed."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from cleanroom_base.errors import InputError
from cleanroom_master import stores

_DIGEST = re.compile(r"[0-9a-f]{64}")


class FileStore:
    """All kept files of an installation."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def directory(self) -> Path:
        """Where they are."""
        return self._directory

    def path(self, sha256: str) -> Path:
        """Where the file with this SHA-256 is. Raises InputError for what is no digest."""
        if not _DIGEST.fullmatch(sha256):
            raise InputError(f"{sha256!r} is not the digest of a file")
        return self._directory / sha256[:2] / sha256

    def lost(self, sha256: str) -> bool:
        """Whether this file alone is not there; not where the whole store is away, for example not mounted."""
        return self._directory.is_dir() and not self.path(sha256).exists()

    def take(self, source: Path, sha256: str) -> Path:
        """Keep a file, whose hash the caller has checked; `source` may be gone afterwards."""
        place = self.path(sha256)
        if not stores.found(self._directory, place):
            place.parent.mkdir(parents=True, exist_ok=True)
            fresh = place.with_name(f"{sha256}.{os.getpid()}.new")
            try:
                shutil.move(source, fresh)
                fresh.chmod(0o444)
                with fresh.open("rb") as file:
                    os.fsync(file.fileno())
                fresh.rename(place)
            finally:
                # Half a file, where the disk was full.
                fresh.unlink(missing_ok=True)
        return place

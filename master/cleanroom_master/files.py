"""Files by the hash of their content: artifacts/ab/abcdef... Once there, a file is never changed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from pathlib import Path
from typing import IO

from cleanroom_base.errors import InputError
from cleanroom_master import stores

# Once there, it is never changed.
_MODE = 0o444
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
        """Keep a file, whose hash the caller has checked; `source` may be gone afterwards.

        Whoever is killed meanwhile leaves nothing but `source`.
        """
        place = self.path(sha256)
        if not stores.found(self._directory, place):
            place.parent.mkdir(parents=True, exist_ok=True)
            source.chmod(_MODE)
            with source.open("rb") as given:
                os.fsync(given.fileno())
                try:
                    source.rename(place)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    _copy(given, place)
        return place


def _copy(given: IO[bytes], place: Path) -> None:
    """Copy to another file system: a file without a name until all of it is there (open(2), O_TMPFILE)."""
    descriptor = os.open(place.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "wb") as fresh:
        shutil.copyfileobj(given, fresh)
        fresh.flush()
        # Whatever the umask is.
        os.fchmod(descriptor, _MODE)
        os.fsync(descriptor)
        # With a directory's descriptor it is linkat(2), which follows this link. Somebody may have brought the same.
        with contextlib.suppress(FileExistsError):
            os.link(f"/proc/self/fd/{descriptor}", place, src_dir_fd=descriptor, follow_symlinks=True)

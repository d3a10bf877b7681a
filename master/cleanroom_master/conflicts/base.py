"""What the distribution below a target has: the lists of packages that apt has in the image's tree."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cleanroom_base.errors import CleanroomError
from cleanroom_base.settings import Settings
from cleanroom_images.catalogue import Catalogue

_LISTS = "var/lib/apt/lists"
# The endings that libsolv reads.
_NAMES = ("*_Packages", "*_Packages.gz", "*_Packages.xz", "*_Packages.zst", "*_Packages.bz2")


@dataclass(frozen=True, slots=True)
class Base:
    """What lies below: its architecture as Debian calls it (None: nobody knows), and its lists of packages."""

    architecture: str | None = None
    lists: tuple[Path, ...] = ()


class Bases(Protocol):
    """Finds what lies below the packages for an image, and keeps it there for a while."""

    def __call__(self, image: str, /) -> AbstractContextManager[Base]: ...


@contextlib.contextmanager
def no_base(_: str) -> Iterator[Base]:
    """Nothing is known of any image."""
    yield Base()


class ImageBases:
    """The images of this installation."""

    def __init__(self, settings: Settings) -> None:
        self._catalogue = Catalogue.of(settings)

    @contextlib.contextmanager
    def __call__(self, image: str, /) -> Iterator[Base]:
        """What an image has; nothing where this machine does not have the image, or it has no lists."""
        store = self._catalogue.store
        if image not in store.names():
            yield Base()
            return
        with store.held(image):
            yield self._base(image)

    def _base(self, image: str) -> Base:
        try:
            built = self._catalogue.store.image(image)
        except CleanroomError:
            return Base()
        directory = built.tree / _LISTS if built.tree is not None else None
        if directory is None or directory.is_symlink() or not directory.is_dir():
            return Base(built.architecture)
        found = sorted(path for pattern in _NAMES for path in directory.glob(pattern) if path.stat().st_size)
        return Base(built.architecture, tuple(path for path in found if path.is_file() and not path.is_symlink()))

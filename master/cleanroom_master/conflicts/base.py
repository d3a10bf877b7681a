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
    """What lies below: its architecture as Debian calls it (None: nobody knows), and its lists of packages.

    `remembered` is a file in which the solver keeps what it read of just these lists; it need not be there.
    """

    architecture: str | None = None
    lists: tuple[Path, ...] = ()
    remembered: Path | None = None


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
        self._remembered = settings.state / "solver"

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
        lists = tuple(path for path in found if path.is_file() and not path.is_symlink())
        return Base(built.architecture, lists, self._place(image, built.digest) if lists else None)

    def _place(self, image: str, digest: str) -> Path | None:
        """Where the solver remembers the lists of an image; what it remembered of others of that name is dropped."""
        place = self._remembered / image / digest
        # To remember nothing costs half a second, no more: a full disk, or a state that is not ours to write.
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            for old in place.parent.iterdir():
                if not old.name.startswith(digest):
                    old.unlink(missing_ok=True)
            return place
        return None

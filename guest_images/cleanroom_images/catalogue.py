"""The catalogue: which images are described, which are built, and the built one by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cleanroom_base.errors import InputError
from cleanroom_images import description
from cleanroom_images.description import Description
from cleanroom_images.store import Image, ImageMissing, Store


@dataclass(frozen=True, slots=True)
class Entry:
    """An image by name: what is described (None for an imported one) and what is built (None when not)."""

    name: str
    description: Description | None
    image: Image | None


class Catalogue:
    """The images of one installation."""

    def __init__(self, state: Path, site: Path | None = None) -> None:
        """`state` is where built images lie, `site` the directory whose `guest_images` describes further ones."""
        self._folders = description.folders(site)
        self.store = Store(state)

    def described(self, name: str) -> bool:
        """Whether there is a description of that name."""
        return name in self._folders

    def entries(self) -> list[Entry]:
        """All images, described or built, by name. Raises InputError for a description that is not valid."""
        return [self.entry(name) for name in sorted({*self._folders, *self.store.names()})]

    def entry(self, name: str) -> Entry:
        """One image by name. Raises InputError when it is neither described nor built, ImageChanged."""
        built = self.store.digest(name) if description.NAME.fullmatch(name) else None
        if built is None and name not in self._folders:
            known = ", ".join(sorted({*self._folders, *self.store.names()}))
            raise InputError(f"there is no image {name!r}", hint=f"known images: {known}")
        described = description.load(self._folders[name]) if name in self._folders else None
        return Entry(name, described, self.store.image(name) if built else None)

    def description(self, name: str) -> Description:
        """The description of an image. Raises InputError."""
        entry = self.entry(name)
        if entry.description is None:
            raise InputError(f"the image {name} was imported: there is no description to build it from")
        return entry.description

    def image(self, name: str) -> Image:
        """The built image. Raises InputError for an unknown name, ImageMissing, ImageChanged."""
        entry = self.entry(name)
        if entry.image is None:
            raise ImageMissing(name)
        return entry.image

    def verify(self, name: str) -> Image:
        """Compare all content of an image with what was sealed. Raises as `image` does."""
        image = self.image(name)
        self.store.verify(image)
        return image

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a built image. Raises InputError, ImageMissing, and ImageInUse unless `force`."""
        self.entry(name)
        self.store.remove(name, force=force)

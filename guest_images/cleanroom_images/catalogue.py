"""The catalogue: which images are described, which are built, and the built one by name."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cleanroom_base.errors import InputError
from cleanroom_base.settings import Settings
from cleanroom_images.description import NAME, Description, of_image
from cleanroom_images.descriptions import Descriptions
from cleanroom_images.store import Image, ImageMissing, Store


@dataclass(frozen=True, slots=True)
class Entry:
    """An image by name: what is described (None for an imported one) and what is built (None when not).

    `outdated` says why what is built is not what would be built now, as far as its description tells; None when it is.
    """

    name: str
    description: Description | None
    image: Image | None
    outdated: str | None = None


class Catalogue:
    """The images of one installation."""

    def __init__(
        self, state: Path, site: Path | None = None, chosen: Mapping[str, str] | None = None, *, former: int = 0
    ) -> None:
        """`state` is where built images lie, `site` the directory whose `guest_images` describes further ones;
        `chosen` has digests, by the images' names, that are to be taken for the present ones; so many `former` ones of
        each image are kept."""
        self.store = Store(state, chosen, former=former)
        self._descriptions = Descriptions(site, self._imported)

    @classmethod
    def of(cls, settings: Settings, chosen: Mapping[str, str] | None = None) -> Catalogue:
        """The images of an installation."""
        return cls(settings.state, settings.site, chosen, former=settings.whole("images.keep"))

    def described(self, name: str) -> bool:
        """Whether there is a description of that name."""
        return name in self._descriptions.names()

    def names(self) -> list[str]:
        """The names of all images, described or built."""
        return sorted({*self._descriptions.names(), *self.store.names()})

    def entries(self) -> list[Entry]:
        """All images, described or built, by name. Raises InputError for a description that is not valid."""
        return [self.entry(name) for name in self.names()]

    def entry(self, name: str) -> Entry:
        """One image by name. Raises InputError when it is neither described nor built, ImageChanged."""
        built = self.store.digest(name) if NAME.fullmatch(name) else None
        if built is None:
            return Entry(name, self.description(name), None)
        described = self._descriptions.load(name) if self.described(name) else None
        image = self.store.image(name)
        return Entry(name, described, image, self._outdated(described, image) if described else None)

    def description(self, name: str) -> Description:
        """The description of an image. Raises InputError."""
        if self.described(name):
            return self._descriptions.load(name)
        if name in self.store.names():
            raise InputError(f"the image {name} was imported: there is no description to build it from")
        raise InputError(f"there is no image {name!r}", hint=f"known images: {', '.join(self.names())}")

    def variant(self, name: str, architecture: str) -> str:
        """The name of the image that the description `name` gives for an architecture. Raises InputError."""
        return self._descriptions.variant(self.description(name).name, architecture)

    def image(self, name: str) -> Image:
        """The built image. Raises InputError for an unknown name, ImageMissing, ImageChanged."""
        entry = self.entry(name)
        if entry.image is None:
            raise ImageMissing(name)
        return entry.image

    def due(self, age: float) -> list[str]:
        """The images to be refreshed: built from a description, and not tried to be built anew for `age` seconds."""
        now = time.time()
        return [name for name in self.store.names() if self.described(name) and self.store.tried_at(name) + age < now]

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Images so that none comes before one that it extends."""
        depth = {name: self._depth(name) for name in names}
        return sorted(depth, key=lambda name: (depth[name], name))

    def verify(self, name: str) -> Image:
        """Compare all content of an image with what was sealed. Raises as `image` does."""
        image = self.image(name)
        self.store.verify(image)
        return image

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a built image. Raises InputError, ImageMissing, and ImageInUse unless `force`."""
        self.entry(name)
        self.store.remove(name, force=force)

    def _depth(self, name: str) -> int:
        """How many images lie below one; 0 when its description is not valid, since then it cannot be built."""
        try:
            extends = self._descriptions.load(name).extends
        except InputError:
            return 0
        return 1 + self._depth(extends) if extends is not None and self.described(extends) else 0

    def _imported(self, name: str) -> Description | None:
        """What an imported image says of itself, None when there is none of that name."""
        built = self.store.digest(name) if NAME.fullmatch(name) else None
        return of_image(self.store.image(name, built)) if built else None

    def _outdated(self, described: Description, image: Image) -> str | None:
        """Why an image is not what would be built now: the one that it extends is another one by now."""
        if described.extends != image.extends:
            return f"it was not built from {described.extends}" if described.extends else "it extended another image"
        if described.extends is None:
            return None
        if self.store.digest(described.extends) != image.parent:
            return f"{described.extends} was built anew since"
        below = self.entry(described.extends).outdated
        return f"{described.extends} is outdated" if below else None

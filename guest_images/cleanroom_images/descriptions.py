"""All images that are described: which there are, and each complete with what it has from the one that it extends.

A folder an image: adding one means adding a folder, here or in a site's own `guest_images`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cleanroom_base.errors import InputError
from cleanroom_images import description
from cleanroom_images.description import Description


class Descriptions:
    """The described images of one installation."""

    def __init__(self, site: Path | None, imported: Callable[[str], Description | None]) -> None:
        """`site` is the directory whose `guest_images` describes further ones; `imported` describes an image that
        was not built from a description, and so can only be extended."""
        self._site = site
        self._imported = imported

    def names(self) -> list[str]:
        """The names of all described images, whether their descriptions are valid or not."""
        return sorted(self._places())

    def load(self, name: str, extending: tuple[str, ...] = ()) -> Description:
        """The description of an image; those named by `extending` extend it. Raises InputError."""
        chain = (*extending, name)
        if name in extending:
            raise InputError(f"images extend each other in a circle: {' -> '.join(chain)}")
        folder, architecture = self._places().get(name, (None, None))
        if folder is not None:
            return description.load(folder, lambda base: self.load(base, chain), architecture)
        found = self._imported(name)
        if found is None:
            raise InputError(f"there is no image {name!r}")
        return found

    def variant(self, name: str, architecture: str) -> str:
        """The name of the image that the description `name` gives for an architecture. Raises InputError."""
        if self.load(name).architecture == architecture:
            return name
        found = f"{name}-{architecture}"
        if found not in self._places():
            raise InputError(
                f"the image {name} is not described for {architecture}",
                hint="its description lists those that it can also be built for as further_architectures",
            )
        return found

    def _places(self) -> dict[str, tuple[Path, str | None]]:
        """The folder of each image, and its architecture where that is not the folder's usual one."""
        folders = _folders(self._site)
        found: dict[str, tuple[Path, str | None]] = {}
        for name, folder in folders.items():
            for architecture in description.further_architectures(folder):
                if architecture != description.native_architecture():
                    found[f"{name}-{architecture}"] = (folder, architecture)
        return found | {name: (folder, None) for name, folder in folders.items()}


def _folders(site: Path | None) -> dict[str, Path]:
    """The folders of all described images by name; a site's own wins over one that comes with Cleanroom."""
    found: dict[str, Path] = {}
    here = Path(__file__).parent
    # Beside the package in a checkout, inside it once installed.
    for base in (here.parent, here / "images", *([site / "guest_images"] if site else [])):
        if base.is_dir():
            found |= {folder.name: folder for folder in sorted(base.iterdir()) if (folder / description.FILE).is_file()}
    return found

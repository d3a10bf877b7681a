"""A generation as plain files in the order in which they are brought to a remote."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_master.publish import addresses
from cleanroom_master.publish.addresses import Stage


@dataclass(frozen=True, slots=True)
class File:
    """A file of a generation: its address, where it is, its size in bytes, and what tells it from what was there."""

    place: str
    path: Path
    size: int
    identity: str

    @property
    def stage(self) -> Stage:
        """When it is brought."""
        return addresses.stage(self.place)


def current(repository: Path) -> tuple[int, Path]:
    """The number and directory of the generation that consumers see. Raises InfrastructureError before the first."""
    root = (repository / "current").resolve()
    if not root.is_dir():
        raise InfrastructureError("nothing is published yet", hint="'cleanroom release list' says what is on its way")
    return int(root.name), root


def files(root: Path) -> list[File]:
    """All files of a generation, in the order in which they are brought.

    A directory to which several links lead is brought once, under the first address. Raises InfrastructureError where
    the generation is collected meanwhile.
    """
    found = []
    seen = {os.path.realpath(root)}
    try:
        # The pools are links: their packages are shared by all generations.
        for directory, directories, names in os.walk(root, followlinks=True, onerror=_raise):
            directories[:] = [name for name in sorted(directories) if _is_new(Path(directory, name), seen)]
            for name in names:
                path = Path(directory, name)
                status = path.stat()
                place = str(path.relative_to(root))
                found.append(File(place, path, status.st_size, f"{status.st_size}-{status.st_mtime_ns}"))
    except OSError as error:
        raise InfrastructureError(f"generation {root.name} cannot be read: {error}") from error
    return sorted(found, key=lambda file: addresses.order(file.place))


def _is_new(directory: Path, seen: set[str]) -> bool:
    """Whether no link led here before; notes that one did."""
    real = os.path.realpath(directory)
    known = real in seen
    seen.add(real)
    return not known


def _raise(error: OSError) -> None:
    raise error

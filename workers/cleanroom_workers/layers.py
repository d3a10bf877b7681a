"""Layers: what the first steps of many phases do to a clean guest, kept to start the next guests from.

A layer is made from an image by running, in a guest of its own, programs that are the same for every product: bring
the system up to date, install a package manager to test with. It is named by what it depends on (the image's
digest and the programs), holds nothing of any product, and grows old. It only saves time: the phase runs its steps
all the same, so a guest without the layer gives the same result.

Some layers also hold the packages that a product declares for its build. The declaration is in the programs, so in
the name, and one that says anything else never meets them. They are bounded: those that are old are not used, and of
too many the least recently used go.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.run import run
from cleanroom_images import manifest
from cleanroom_images.store import Image
from cleanroom_workers import idmap, mounts
from cleanroom_workers.locks import attempted, locked
from cleanroom_workers.snapshot_store import beyond

_TIMEOUT = 600.0
_KEY_LENGTH = 16
_SEAL = "layer.json"
# What belongs to one guest and not to a layer: its logs, the packages as they were fetched, its seeds.
_CLEARED = ("var/log", "var/cache/apt/archives", "var/tmp", "tmp")
_OWN = ("var/lib/systemd/random-seed", "var/lib/systemd/timers", "var/lib/dbus/machine-id", ".oldroot")
# A layer that was found to be what was made is believed so long, in seconds.
_BELIEVED = 30.0
# Of the layers with what products declare there are so many, and they take this part of the disk.
_MOST, _DISK = 50, 0.1
_LOCK_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that is whole: its name, the tree that lies on the image's, the manifest of both together, when it was
    made (seconds since the epoch), the image's digest, whether it holds what a product declares, the bytes of disk that
    it takes."""

    name: str
    tree: Path
    manifest: Path
    made_at: float
    image: str | None
    declared: bool
    size: int

    @property
    def method(self) -> str:
        """How a guest is reset that starts from it."""
        return f"overlay on layer {self.name[:8]}" + (" with build dependencies" if self.declared else "")

    @property
    def seal(self) -> Path:
        """The file that says all this; its time is when the layer was last used."""
        return self.tree.with_name(_SEAL)


class Layers:
    """The layers of an installation."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._believed: dict[str, float] = {}

    def find(self, image: Image, programs: Iterable[str], since: float = 0.0) -> Layer | None:
        """The newest sound layer for an image and programs that was made after `since`; None when there is none."""
        key = _key(image, programs)
        for place in sorted(self._directory.glob(f"{key}-*"), reverse=True):
            layer = _read(place)
            if layer is not None and layer.made_at > since and self._sound(layer):
                return layer
        return None

    @contextlib.contextmanager
    def choosing(self) -> Iterator[None]:
        """Nothing is removed meanwhile: for who finds a layer, until it is written down that a guest uses it."""
        with locked(self._directory / ".choosing", timeout=_LOCK_TIMEOUT):
            yield

    def used(self, layer: Layer) -> None:
        """A guest starts from a layer."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(layer.seal)

    def manifest(self, name: str) -> Path:
        """The manifest of the layer `name` together with the image that it lies on."""
        return self._directory / name / "manifest"

    def add(
        self, image: Image, programs: Iterable[str], upper: Path, given: Collection[str], *, declared: bool = False
    ) -> Layer:
        """Keep what programs changed: `upper` is a tree with their overlay's upper layer, owners as in the image.

        `given` are the files that only that guest was given; `declared` says that a product's declaration is among the
        programs. Raises CommandError.
        """
        assert image.tree is not None
        self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._directory, prefix=".making-") as made:
            place = Path(made)
            run(["cp", "--archive", f"{upper}/.", place / "tree"], timeout=_TIMEOUT)
            _strip(place / "tree", given)
            with _merged(image.tree, place / "tree") as merged:
                manifest.write(merged, place / "manifest")
            content = {"image": image.digest, "declared": declared, "size": _allocated(place)}
            (place / _SEAL).write_text(json.dumps({"made_at": time.time(), **content}), encoding="utf-8")
            place.chmod(0o755)
            final = self._directory / f"{_key(image, programs)}-{time.time_ns():020}"
            place.rename(final)
            place.mkdir()  # for the context to remove
        layer = _read(final)
        if layer is None:
            raise InfrastructureError(f"the layer {final.name} vanished while it was made")
        return layer

    def sweep(self, used: Callable[[], Collection[str]], images: Collection[str | None]) -> None:
        """Remove layers that have a newer one, lie on none of the `images` (digests), or are no more what was made,
        and half-made ones; not those `used` (names)."""
        newest = {place.name.rsplit("-", 1)[0]: place.name for place in sorted(self._directory.glob("[!.]*"))}
        doomed = []
        for place in self._directory.glob("[!.]*"):
            layer = _read(place)
            current = newest[place.name.rsplit("-", 1)[0]] == place.name
            if not (current and layer is not None and layer.image in images and self._sound(layer)):
                doomed.append(place.name)
        self._remove(doomed, used)

    def bound(self, used: Callable[[], Collection[str]], since: float) -> None:
        """Of the layers with what products declare, remove those that were made before `since` and, where they are
        too many or take too much of the disk, the least recently used; not those `used` (names)."""
        layers = [layer for place in self._directory.glob("[!.]*") if (layer := _read(place)) and layer.declared]
        young = sorted((layer for layer in layers if layer.made_at > since), key=_last_used, reverse=True)
        names = [layer.name for layer in young]
        if layers:
            room = shutil.disk_usage(self._directory).total * _DISK
            too_much = beyond(names[:_MOST], {layer.name: layer.size for layer in layers}, room)
            old = [layer.name for layer in layers if layer.made_at <= since]
            self._remove([*old, *names[_MOST:], *too_much], used)

    def _remove(self, names: Collection[str], used: Callable[[], Collection[str]]) -> None:
        """Remove layers, but none that a guest uses or is about to."""
        if names:
            with self.choosing():
                for name in set(names) - set(used()):
                    with contextlib.suppress(FileNotFoundError):
                        (self._directory / name).rename(self._directory / f".gone-{name}")
        for place in self._directory.glob(".gone-*"):
            shutil.rmtree(place, ignore_errors=True)

    def _sound(self, layer: Layer) -> bool:
        """Whether nothing of it was changed since it was made: every change sets a time that no program can set
        back."""
        if self._believed.get(layer.name, 0.0) > time.monotonic():
            return True
        seen: list[str | Path] = [layer.tree, layer.manifest]
        newer = ["find", *seen, "-newerct", f"@{layer.made_at:.9f}", "-print", "-quit"]
        sound = layer.tree.is_dir() and not run(newer, timeout=_TIMEOUT).stdout
        if sound:
            self._believed[layer.name] = time.monotonic() + _BELIEVED
        return sound

    @contextlib.contextmanager
    def making(self) -> Iterator[bool]:
        """Tells whether this process alone may make layers now; if so, what others left half-made is removed."""
        self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        with attempted(self._directory / ".lock") as alone:
            if alone:
                for place in self._directory.glob(".making-*"):
                    for mounted in mounts.below(place):
                        mounts.unmount(mounted)
                    shutil.rmtree(place, ignore_errors=True)
            yield alone


def _key(image: Image, programs: Iterable[str]) -> str:
    content = json.dumps([image.digest, *programs]).encode()
    return hashlib.sha256(content).hexdigest()[:_KEY_LENGTH]


def _read(place: Path) -> Layer | None:
    try:
        content = json.loads((place / _SEAL).read_text(encoding="utf-8"))
        made_at, image = float(content["made_at"]), content.get("image")
        declared, size = bool(content.get("declared")), int(content.get("size", 0))
        return Layer(place.name, place / "tree", place / "manifest", made_at, image, declared, size)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _last_used(layer: Layer) -> float:
    try:
        return layer.seal.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _allocated(directory: Path) -> int:
    """The bytes of disk that all files below a directory take."""
    files = (Path(parent, name) for parent, _, names in os.walk(directory) for name in names)
    return sum(file.lstat().st_blocks * 512 for file in files)


def _strip(tree: Path, given: Collection[str]) -> None:
    """Take out of an upper layer what belongs to the guest alone; below, the image's own shows again."""
    for name in (*given, *_OWN):
        path = tree / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for name in _CLEARED:
        # Packages own directories there, which stay.
        for directory, _, files in os.walk(tree / name):
            for file in files:
                Path(directory, file).unlink()


@contextlib.contextmanager
def _merged(lower: Path, upper: Path) -> Iterator[Path]:
    """Both trees as one, read-only."""
    place = upper.with_name("merged")
    place.mkdir()
    mounts.mount("overlay", place, kind="overlay", options=f"ro,lowerdir={upper}:{lower}")
    try:
        yield place
    finally:
        mounts.unmount(place)
        place.rmdir()


@contextlib.contextmanager
def owned_as_in_image(upper: Path, first_user: int, place: Path) -> Iterator[Path]:
    """A container's upper layer with the owners that its files have inside."""
    place.mkdir()
    idmap.mount(upper, place, 0, stored=first_user)
    try:
        yield place
    finally:
        mounts.unmount(place)
        with contextlib.suppress(OSError):
            place.rmdir()

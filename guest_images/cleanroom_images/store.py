"""Where built images lie, and how one is put in place so that it is whole or not there.

    STATE/images/NAME/DIGEST/        tree/ disk.ext4 kernel initrd manifest
    STATE/images/NAME/DIGEST.json    the seal: what was sealed and when; written last
    STATE/images/NAME/current        a link to DIGEST, flipped by one rename
    STATE/images/NAME/former         the DIGESTs that were the present one before, oldest first
    STATE/images/NAME/users/USER     holds the DIGEST that a guest, or whoever else has that name, needs

A builder may be killed at any moment: what it leaves starts with a dot and is cleared away by the next one. A digest
that is not the present one nor one of the last before it, that nobody needs, and that nobody is just building, is
removed by `tidy`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.run import run
from cleanroom_images import manifest

_CHECK_TIMEOUT = 60.0
_OLD = ".old-"
_TRIED = ".tried"
_LOOKED = ".looked-at"


class ImageMissing(InfrastructureError):
    """An image has not been built on this host, or (with a digest) that one of its digests is not there any more."""

    def __init__(self, name: str, digest: str | None = None) -> None:
        if digest is None:
            super().__init__(f"the image {name} is not there on this host", hint=f"run: cleanroom image build {name}")
        else:
            super().__init__(f"the image {name} of digest {digest} is not there on this host any more")


class ImageChanged(InfrastructureError):
    """An image is no longer what was sealed."""


class ImageInUse(InfrastructureError):
    """An image cannot be removed while guests run from it."""


@dataclass(frozen=True, slots=True)
class Image:
    """A built image. `size` is in bytes, `built_at` is a time in ISO 8601 (UTC).

    `tree` is None when only a disk was imported; `kernel` and `initrd` are None when the disk boots by itself.
    `extends` is the name of the image that it extends, `parent` the digest of that one as it was.
    """

    name: str
    digest: str
    directory: Path
    architecture: str
    distribution: str
    suite: str
    formats: tuple[str, ...]
    built_at: str
    size: int
    tree: Path | None
    disk: Path | None
    disk_format: str
    kernel: Path | None
    initrd: Path | None
    extends: str | None = None
    parent: str | None = None

    @property
    def manifest(self) -> Path:
        """The list of everything in the image's tree."""
        return self.directory / "manifest"


class Store:
    """The images of one installation."""

    def __init__(self, state: Path, chosen: Mapping[str, str] | None = None, *, former: int = 0) -> None:
        """`chosen` has digests, by the images' names, that are to be taken for the present ones; of each image so many
        `former` ones are kept though nobody needs them."""
        self.directory = state / "images"
        self._chosen = chosen or {}
        self._kept = former

    def names(self) -> list[str]:
        """The names of all images that are built."""
        if not self.directory.is_dir():
            return []
        return sorted(path.name for path in self.directory.iterdir() if (path / "current").is_symlink())

    def digest(self, name: str) -> str | None:
        """The digest of the present image `name`, None when there is none."""
        return self._chosen.get(name) or self._present(name)

    def image(self, name: str, digest: str | None = None) -> Image:
        """The built image `name`, the present one or that of a digest. Raises ImageMissing, ImageChanged."""
        present = self._present(name)
        digest = digest or self._chosen.get(name) or present
        if digest is None:
            raise ImageMissing(name)
        try:
            seal = json.loads(self._seal(name, digest).read_text(encoding="utf-8"))
            return _from_seal(self.directory / name / digest, seal)
        except FileNotFoundError as error:
            raise ImageMissing(name, None if digest == present else digest) from error
        except (ValueError, KeyError, TypeError) as error:
            raise _changed(name, f"its seal cannot be read: {error}") from error

    @contextlib.contextmanager
    def building(self, name: str) -> Iterator[Path]:
        """A fresh directory for the parts of a new image; only one builder of an image at a time is let in."""
        home = self.directory / name
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home / ".building", fcntl.LOCK_EX):
            for stray in home.glob(".new-*"):
                _delete(stray)
            directory = home / f".new-{os.getpid()}"
            directory.mkdir()
            try:
                yield directory
            finally:
                if directory.exists():
                    _delete(directory)

    def seal(self, image: Image, directory: Path) -> Image:
        """Put what lies in `directory` in place as `image`, beside the present one."""
        with self.held(image.name, exclusive=True):
            place = self.directory / image.name / image.digest
            # The same content again: the one in place may be in use, and is as good if it is unchanged.
            if self._same(image.name, image.digest):
                known = self.image(image.name, image.digest)
                self._write_seal(replace(known, extends=image.extends, parent=image.parent))
            else:
                self._seal(image.name, image.digest).unlink(missing_ok=True)
                if place.exists():
                    _delete(place)
                directory.rename(place)
                self._write_seal(replace(_moved(image, place), size=_size(place)))
        return self.image(image.name, image.digest)

    def switch(self, image: Image) -> None:
        """Make a sealed image the present one; those before it go, but for the last, unless somebody needs them."""
        with self.held(image.name, exclusive=True):
            # First: who ends between the two leaves one that is noted as former and still the present one.
            self._note_former(image.name, self._present(image.name))
            _link(self.directory / image.name / "current", image.digest)
        self.settle(image.name)

    def former(self, name: str) -> list[str]:
        """The digests that were the present image `name` before and are there still, oldest first."""
        try:
            noted = (self.directory / name / "former").read_text(encoding="ascii").split()
        except FileNotFoundError:
            return []
        present = self._present(name)
        return [digest for digest in noted if digest != present and self._seal(name, digest).exists()]

    def settle(self, name: str) -> None:
        """Remove what is not the present image `name` nor one of the last, and nobody needs any more."""
        with self.held(name, exclusive=True):
            self._set_aside(name)
        self._clear(name)

    def tidy(self) -> None:
        """Do that for all images without waiting for anybody: what is just built or taken into use is left for the next
        time."""
        for name in self.names():
            home = self.directory / name
            with _attempted(home / ".building") as nobody_builds, _attempted(home / ".held") as nobody_holds:
                if nobody_builds and nobody_holds:
                    self._set_aside(name)
            self._clear(name)

    def tried_at(self, name: str) -> float:
        """When the present image was put in place or last tried to be built anew, in seconds since the epoch."""
        home = self.directory / name
        tried = home / _TRIED
        return max((home / "current").lstat().st_mtime, tried.stat().st_mtime if tried.exists() else 0.0)

    def note_try(self, name: str) -> None:
        """Note that an image is tried to be built anew now."""
        (self.directory / name / _TRIED).touch()

    def unverified(self, age: float) -> list[str]:
        """The images whose content was not compared with their seals for `age` seconds."""
        now = time.time()
        return [name for name in self.names() if self._looked_at(name) + age < now]

    def note_look(self, name: str) -> None:
        """Note that the content of an image is compared with its seal now."""
        (self.directory / name / _LOOKED).touch()

    @contextlib.contextmanager
    def held(self, name: str, *, exclusive: bool = False) -> Iterator[None]:
        """Keep an image from being removed (or, `exclusive`, from being taken into use) for a while."""
        home = self.directory / name
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home / ".held", fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH):
            yield

    def claim(self, image: Image, user: str) -> None:
        """Note that `user` runs from an image. The caller has it held."""
        users = self.directory / image.name / "users"
        users.mkdir(exist_ok=True)
        (users / user).write_text(image.digest, encoding="ascii")

    def release(self, name: str, user: str) -> None:
        """Note that `user` runs from the image `name` no more."""
        (self.directory / name / "users" / user).unlink(missing_ok=True)

    def users(self, name: str) -> list[str]:
        """Who needs one of the digests of the image `name`."""
        users = self.directory / name / "users"
        return sorted(user.name for user in users.iterdir()) if users.is_dir() else []

    def check(self, image: Image) -> None:
        """See in some 50 ms whether anything of an image was touched since it was sealed.

        Every change to a file or directory sets its status change time, which no program can set back. When
        one is newer than the seal, the content decides. Raises ImageChanged.
        """
        if not image.directory.is_dir():
            raise _changed(image.name, "its directory is gone")
        sealed = self._sealed_at(image)
        newer: list[str | Path] = ["find", image.directory, "-newerct", f"@{sealed}", "-print", "-quit"]
        if run(newer, timeout=_CHECK_TIMEOUT).stdout:
            self.verify(image)
            self._write_seal(image)

    def verify(self, image: Image) -> None:
        """Compare all content of an image with what was sealed. Raises ImageChanged with the first differences.

        From then on the content decides each time, whatever times say: disks change what is on them without a word.
        """
        differences = list(self._differences(image))
        if differences:
            if image.directory.is_dir():
                self._doubt(image)
            raise _changed(image.name, "; ".join(differences[:5]))

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove an image, all its digests. Raises ImageMissing, ImageInUse unless `force`."""
        home = self.directory / name
        if not (home / "current").is_symlink():
            raise ImageMissing(name)
        with self.held(name, exclusive=True):
            digests = [seal.stem for seal in home.glob("*.json")]
            if not force and self._in_use(name):
                raise ImageInUse(
                    f"guests run from the image {name}",
                    hint="destroy them first ('cleanroom guest list'), or use --force",
                )
            (home / "current").unlink(missing_ok=True)
            for digest in digests:
                self._drop(name, digest)
        _delete(home)

    def _present(self, name: str) -> str | None:
        try:
            return str((self.directory / name / "current").readlink())
        except FileNotFoundError:
            return None

    def _note_former(self, name: str, digest: str | None) -> None:
        """Note that a digest is to be replaced; the list stays as short as what is still there."""
        if digest is not None:
            file = self.directory / name / "former"
            noted = [one for one in self.former(name) if one != digest]
            temporary = file.with_name(f".{file.name}")
            temporary.write_text("\n".join([*noted, digest]) + "\n", encoding="ascii")
            temporary.replace(file)

    def _set_aside(self, name: str) -> None:
        """Take away the digests that are neither present nor needed nor among the last ones, quickly.

        The caller has the image held alone.
        """
        home = self.directory / name
        last = self.former(name)[-self._kept :] if self._kept else []
        needed = {self._present(name), *self._in_use(name), *last}
        for seal in home.glob("*.json"):
            if seal.stem not in needed:
                seal.unlink()
                with contextlib.suppress(FileNotFoundError):
                    (home / seal.stem).rename(home / f"{_OLD}{seal.stem}")

    def _clear(self, name: str) -> None:
        """Remove what was set aside, which takes seconds."""
        for old in (self.directory / name).glob(f"{_OLD}*"):
            _delete(old)

    def _in_use(self, name: str) -> set[str]:
        users = self.directory / name / "users"
        return {user.read_text(encoding="ascii") for user in users.iterdir()} if users.is_dir() else set()

    def _seal(self, name: str, digest: str) -> Path:
        return self.directory / name / f"{digest}.json"

    def _sealed_at(self, image: Image) -> str:
        seal = json.loads(self._seal(image.name, image.digest).read_text(encoding="utf-8"))
        return f"{float(seal['sealed_at']):.9f}"

    def _looked_at(self, name: str) -> float:
        """When an image was last compared with its seal: what is put in place was just sealed."""
        home = self.directory / name
        looked = home / _LOOKED
        return max((home / "current").lstat().st_mtime, looked.stat().st_mtime if looked.exists() else 0.0)

    def _doubt(self, image: Image) -> None:
        """Have everything in an image count as newer than its seal."""
        file = self._seal(image.name, image.digest)
        _put(file, {**json.loads(file.read_text(encoding="utf-8")), "sealed_at": 0.0})

    def _same(self, name: str, digest: str) -> bool:
        if not self._seal(name, digest).exists():
            return False
        try:
            self.verify(self.image(name, digest))
        except InfrastructureError:
            return False
        return True

    def _write_seal(self, image: Image) -> None:
        content = {
            key: (value.name if isinstance(value, Path) else value)
            for key, value in asdict(image).items()
            if key != "directory"
        }
        parts = [part for part in (image.disk, image.kernel, image.initrd) if part is not None]
        content["checksums"] = {part.name: manifest.file_digest(part) for part in parts}
        content["sealed_at"] = time.time()
        _put(self._seal(image.name, image.digest), content)

    def _differences(self, image: Image) -> Iterator[str]:
        if not image.directory.is_dir():
            yield "its directory is gone"
            return
        seal = json.loads(self._seal(image.name, image.digest).read_text(encoding="utf-8"))
        for name, checksum in seal["checksums"].items():
            part = image.directory / name
            if not part.is_file() or manifest.file_digest(part) != checksum:
                yield f"{name} has other content"
        if image.tree is not None:
            if not image.manifest.is_file() or manifest.file_digest(image.manifest) != image.digest:
                yield "the manifest has other content"
                return
            yield from compare(image.manifest, image.tree)

    def _drop(self, name: str, digest: str) -> None:
        self._seal(name, digest).unlink(missing_ok=True)
        _delete(self.directory / name / digest)


def compare(listed: Path, tree: Path) -> Iterator[str]:
    """What differs between a manifest and a file tree, in words."""
    with listed.open(encoding="utf-8") as source:
        expected = {line.rstrip("\n").rsplit(" ", 1)[1]: line.rstrip("\n") for line in source}
    for line in manifest.lines(tree):
        path = line.rsplit(" ", 1)[1]
        sealed = expected.pop(path, None)
        if sealed is None:
            yield f"{path} was added"
        elif sealed != line:
            yield f"{path} was changed"
    yield from (f"{path} was removed" for path in expected)


def now() -> str:
    """The present time in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _changed(name: str, how: str) -> ImageChanged:
    return ImageChanged(f"the image {name} is not what was sealed: {how}", hint=f"run: cleanroom image build {name}")


def _from_seal(directory: Path, seal: dict[str, object]) -> Image:
    def part(key: str) -> Path | None:
        return directory / str(seal[key]) if seal[key] else None

    def text(key: str) -> str | None:
        # An image that was sealed before images could extend each other says nothing of it.
        return str(seal[key]) if seal.get(key) else None

    formats = seal["formats"]
    if not isinstance(formats, list):
        raise TypeError("formats is no list")
    return Image(
        name=str(seal["name"]),
        digest=str(seal["digest"]),
        directory=directory,
        architecture=str(seal["architecture"]),
        distribution=str(seal["distribution"]),
        suite=str(seal["suite"]),
        formats=tuple(formats),
        built_at=str(seal["built_at"]),
        size=int(str(seal["size"])),
        tree=part("tree"),
        disk=part("disk"),
        disk_format=str(seal["disk_format"]),
        kernel=part("kernel"),
        initrd=part("initrd"),
        extends=text("extends"),
        parent=text("parent"),
    )


def _moved(image: Image, place: Path) -> Image:
    def part(path: Path | None) -> Path | None:
        return None if path is None else place / path.name

    return replace(
        image,
        directory=place,
        tree=part(image.tree),
        disk=part(image.disk),
        kernel=part(image.kernel),
        initrd=part(image.initrd),
    )


def _size(directory: Path) -> int:
    return int(run(["du", "-s", "-B1", directory], timeout=_CHECK_TIMEOUT).text.split()[0])


def _put(file: Path, content: dict[str, object]) -> None:
    temporary = file.with_name(f".{file.name}")
    temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    temporary.replace(file)


def _link(link: Path, target: str) -> None:
    temporary = link.with_name(f".{link.name}-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def _delete(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked(file: Path, how: int) -> Iterator[None]:
    with file.open("ab") as lock:
        fcntl.flock(lock, how)
        yield


@contextlib.contextmanager
def _attempted(file: Path) -> Iterator[bool]:
    with file.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True

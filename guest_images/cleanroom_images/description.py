"""What an image should be: the `image.toml` in its folder, read and checked.

An image is described from the ground (distribution, suite, ...) or as one that extends another: then its packages and
its provision program are what is added.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cleanroom_base.errors import InputError, Problem
from cleanroom_images.store import Image

FILE = "image.toml"
FORMATS = ("deb", "rpm", "script")
NAME = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~_-]*")
# Debian's names of what uname(2) calls the machine. Source: dpkg's cputable.
_NATIVE = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "riscv64": "riscv64",
    "ppc64le": "ppc64el",
    "s390x": "s390x",
}
ARCHITECTURES = tuple(_NATIVE.values())
# What an image has from the one that it extends.
_INHERITED = ("distribution", "suite", "components", "architecture", "further_architectures", "renamed")


@dataclass(frozen=True, slots=True)
class Description:
    """What an image should be; `provision` is a program that is given the root directory.

    With `extends`, the name of another image, it is that one with the packages, and what the program does, added.
    """

    name: str
    folder: Path
    description: str
    distribution: str
    suite: str
    components: tuple[str, ...]
    architecture: str
    formats: tuple[str, ...]
    packages: tuple[str, ...]
    provision: Path | None
    extends: str | None = None


# Finds the description of an image that is extended. Raises InputError.
Base = Callable[[str], Description]


def native_architecture() -> str:
    """This host's architecture in Debian's words."""
    machine = os.uname().machine
    return _NATIVE.get(machine, machine)


def further_architectures(folder: Path) -> tuple[str, ...]:
    """The architectures for which the description in `folder` can also be built, if it can be read."""
    try:
        further = tomllib.loads((folder / FILE).read_text(encoding="utf-8"))["further_architectures"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError):
        return ()
    return tuple(name for name in ARCHITECTURES if isinstance(further, list) and name in further)


def load(folder: Path, base: Base, architecture: str | None = None) -> Description:
    """Read the description in `folder`; `base` finds that of an image that it extends. With an `architecture`, one of
    its further ones, it is that of the image for it, called `NAME-ARCHITECTURE`.

    Raises InputError with everything that is wrong, each with its place.
    """
    file = folder / FILE
    try:
        content: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read the image's description {file}: {error}") from error
    reader = _Reader(content)
    ground = _extended(reader, folder, base) if "extends" in content else _ground(reader, folder, architecture)
    renamed = reader.names("renamed").get(ground.architecture, {})
    packages = [package.replace("{architecture}", ground.architecture) for package in reader.texts("packages", ())]
    provision = reader.text("provision", "")
    described = replace(
        ground,
        description=reader.text("description", ""),
        formats=reader.words("formats", ground.formats, among=FORMATS),
        packages=tuple(renamed.get(package, package) for package in packages),
        provision=folder / provision if provision else None,
    )
    reader.finish(described)
    return described


def _ground(reader: _Reader, folder: Path, wanted: str | None) -> Description:
    """What a description says of an image that extends no other, its packages and the like left out."""
    architecture = reader.word("architecture", "native")
    reader.words("further_architectures", (), among=ARCHITECTURES)
    return Description(
        name=folder.name if wanted is None else f"{folder.name}-{wanted}",
        folder=folder,
        description="",
        distribution=reader.word("distribution"),
        suite=reader.word("suite"),
        components=reader.words("components", ("main",)),
        architecture=wanted or (native_architecture() if architecture == "native" else architecture),
        formats=FORMATS,
        packages=(),
        provision=None,
    )


def _extended(reader: _Reader, folder: Path, base: Base) -> Description:
    """What a description has from the image that it extends."""
    extends = reader.word("extends")
    reader.inherited(*_INHERITED)
    try:
        found = base(extends)
    except InputError as error:
        reader.blame("extends", error)
        found = Description(folder.name, folder, "", "", "", (), native_architecture(), FORMATS, (), None)
    return replace(found, name=folder.name, folder=folder, extends=extends)


def of_image(image: Image) -> Description:
    """What an imported image says of itself, for others to extend it."""
    return Description(
        name=image.name,
        folder=image.directory,
        description="imported",
        distribution=image.distribution,
        suite=image.suite,
        components=(),
        architecture=image.architecture,
        formats=image.formats,
        packages=(),
        provision=None,
    )


class _Reader:
    """Takes keys out of a table and remembers what was wrong with them."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content
        self._problems: list[Problem] = []
        self._known: set[str] = set()

    def text(self, key: str, default: str | None = None) -> str:
        self._known.add(key)
        value = self._content.get(key, default)
        if isinstance(value, str):
            return value
        self._problem(key, "is missing" if value is None else "must be text")
        return ""

    def word(self, key: str, default: str | None = None) -> str:
        value = self.text(key, default)
        if value and not _WORD.fullmatch(value):
            self._problem(key, f"{value!r} is no plain word")
        return value

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        self._known.add(key)
        value = self._content.get(key, list(default))
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        self._problem(key, "must be a list of texts")
        return default

    def words(self, key: str, default: tuple[str, ...], among: tuple[str, ...] = ()) -> tuple[str, ...]:
        values = self.texts(key, default)
        for index, value in enumerate(values):
            if not _WORD.fullmatch(value):
                self._problem(f"{key}[{index}]", f"{value!r} is no plain word")
            elif among and value not in among:
                self._problem(f"{key}[{index}]", f"{value!r} is not one of: {', '.join(among)}")
        return values

    def names(self, key: str) -> dict[str, dict[str, str]]:
        """By architecture, what is called otherwise there."""
        self._known.add(key)
        value = self._content.get(key, {})
        for architecture, names in value.items() if isinstance(value, dict) else [("", value)]:
            if architecture not in ARCHITECTURES:
                self._problem(key, f"must have tables named by: {', '.join(ARCHITECTURES)}")
            elif not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
                self._problem(f"{key}.{architecture}", "must be a table with the names of packages")
            else:
                continue
            return {}
        return dict(value)

    def inherited(self, *keys: str) -> None:
        """Refuse keys whose values come from elsewhere."""
        for key in keys:
            self._known.add(key)
            if key in self._content:
                self._problem(key, "comes from the image that is extended")

    def blame(self, key: str, error: InputError) -> None:
        """Note that what a key refers to is not valid."""
        for message in map(str, error.problems) if error.problems else (error.message,):
            self._problem(key, f"{self._content[key]}: {message}" if error.problems else message)

    def finish(self, described: Description) -> None:
        for key in sorted(self._content.keys() - self._known):
            self._problem(key, "unknown key")
        for index, package in enumerate(described.packages):
            if not _WORD.fullmatch(package):
                self._problem(f"packages[{index}]", f"{package!r} is no name of a package")
        if not NAME.fullmatch(described.name):
            self._problem("", f"{described.name!r} is no name of an image: small letters, digits, '.', '+', '-'")
        if described.provision is not None and not os.access(described.provision, os.X_OK):
            self._problem("provision", f"{described.provision} is not an executable file")
        if self._problems:
            raise InputError(f"{described.folder / FILE} is not valid", problems=self._problems)

    def _problem(self, place: str, message: str) -> None:
        self._problems.append(Problem(place, message))

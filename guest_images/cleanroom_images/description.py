"""What an image should be: the `image.toml` in its folder, read and checked.

A folder an image: adding one means adding a folder, here or in a site's own `guest_images`.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cleanroom_base.errors import InputError, Problem

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


@dataclass(frozen=True, slots=True)
class Description:
    """What an image should be; `provision` is a program that is given the root directory."""

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


def native_architecture() -> str:
    """This host's architecture in Debian's words."""
    machine = os.uname().machine
    return _NATIVE.get(machine, machine)


def folders(site: Path | None) -> dict[str, Path]:
    """The folders of all described images by name; a site's own wins over one that comes with Cleanroom."""
    found: dict[str, Path] = {}
    here = Path(__file__).parent
    # Beside the package in a checkout, inside it once installed.
    for base in (here.parent, here / "images", *([site / "guest_images"] if site else [])):
        if base.is_dir():
            found |= {folder.name: folder for folder in sorted(base.iterdir()) if (folder / FILE).is_file()}
    return found


def load(folder: Path) -> Description:
    """Read the description in `folder`.

    Raises InputError with everything that is wrong, each with its place.
    """
    file = folder / FILE
    try:
        content: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read the image's description {file}: {error}") from error
    reader = _Reader(content)
    architecture = reader.word("architecture", "native")
    if architecture == "native":
        architecture = native_architecture()
    provision = reader.text("provision", "")
    described = Description(
        name=folder.name,
        folder=folder,
        description=reader.text("description", ""),
        distribution=reader.word("distribution"),
        suite=reader.word("suite"),
        components=reader.words("components", ("main",)),
        architecture=architecture,
        formats=reader.words("formats", FORMATS),
        packages=tuple(package.replace("{architecture}", architecture) for package in reader.texts("packages", ())),
        provision=folder / provision if provision else None,
    )
    reader.finish(described)
    return described


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

    def words(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        values = self.texts(key, default)
        for index, value in enumerate(values):
            if not _WORD.fullmatch(value):
                self._problem(f"{key}[{index}]", f"{value!r} is no plain word")
        return values

    def finish(self, described: Description) -> None:
        for key in sorted(self._content.keys() - self._known):
            self._problem(key, "unknown key")
        for index, name in enumerate(described.formats):
            if name not in FORMATS:
                self._problem(f"formats[{index}]", f"{name!r} is not one of: {', '.join(FORMATS)}")
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

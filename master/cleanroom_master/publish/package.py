"""The words of publication: what a package says of itself, and where it is published."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from cleanroom_base.errors import InfrastructureError, InputError, Problem

Format = Literal["deb", "dsc", "rpm"]
_FORMATS: tuple[Format, ...] = ("deb", "dsc", "rpm")
Family = Literal["apt", "yum"]
_PATH_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9+._~^-]*")


def recorded_format(text: str) -> Format:
    """The format that a row names. Raises InfrastructureError when there is no such format."""
    for known in _FORMATS:
        if known == text:
            return known
    raise InfrastructureError(f"the record names a package format that there is not: {text!r}")


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A package file and what it says of itself, read from its control data or header.

    `version` is complete: `[epoch:]version[-revision]`. `architecture` is `source` for a .dsc and `src` for a
    source rpm. `size` is in bytes. `built_sha256` differs from `sha256` when signing changed the file (rpm).
    `entries` are its finished pieces of the repository's indexes by index (`Packages`, `Sources`, or `primary`,
    `filelists` and `other`). `companions` are the files that a .dsc needs beside it, with their sha256.
    """

    format: Format
    file: str
    sha256: str
    built_sha256: str
    size: int
    name: str
    version: str
    architecture: str
    entries: Mapping[str, str]
    companions: Mapping[str, str]

    def published_in(self, channel: str, target: str) -> Package:
        """This file as a package of a channel."""
        return Package(
            channel,
            target,
            self.format,
            self.file,
            self.sha256,
            self.size,
            self.name,
            self.version,
            self.architecture,
        )


@dataclass(frozen=True, order=True, slots=True)
class Stream:
    """A part of the repository that a consumer subscribes to: a channel for one image's packages."""

    family: Family
    channel: str
    image: str


@dataclass(frozen=True, order=True, slots=True)
class Package:
    """A package in a channel. `sha256` and `size` (bytes) are those of the published file.

    Raises InputError for a word that is not fit to be a part of a path and of an address.
    """

    channel: str
    target: str
    format: Format
    file: str
    sha256: str
    size: int
    name: str
    version: str
    architecture: str

    def __post_init__(self) -> None:
        for word in (self.channel, self.image, self.name, self.file, self.sha256):
            if not _PATH_PART.fullmatch(word):
                raise InputError(f"a package cannot be published under {word!r}: {self.file!r} in {self.channel!r}")

    @property
    def image(self) -> str:
        """The image of the target: apt's component, dnf's directory."""
        return self.target.partition("/")[0]

    @property
    def stream(self) -> Stream:
        """Where the package is found."""
        return Stream("yum" if self.format == "rpm" else "apt", self.channel, self.image)

    @property
    def path(self) -> str:
        """Where its file is, below the root of its apt or yum repository.

        A part of the checksum is in it: an address never changes its content, so caches and mirrors, and
        clients that still read an older generation, are never given other bytes than they expect.
        """
        return file_path(self.name, self.sha256, self.file)


class VersionConflict(InputError):
    """The same version of a package is there with other bytes."""


def file_path(name: str, sha256: str, file: str) -> str:
    """The path of a package's file below the root of a repository."""
    return f"pool/{name}/{sha256[:16]}/{file}"


def conflicts(packages: Iterable[Package]) -> list[Problem]:
    """Packages that claim one name, version and architecture in one place with different bytes."""
    problems = []
    seen: dict[tuple[Stream, str, str, str], Package] = {}
    for package in packages:
        key = (package.stream, package.name, package.version, package.architecture)
        first = seen.setdefault(key, package)
        if first.sha256 != package.sha256:
            problems.append(
                Problem(
                    f"{package.channel}: {package.target}",
                    f"{package.name} {package.version} ({package.architecture}) is there with other bytes:"
                    f" {first.sha256} and {package.sha256}",
                )
            )
    return problems

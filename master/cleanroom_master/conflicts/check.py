"""Looks at releases together with what their channel publishes and with those that wait beside them.

The files are compared in the record, where all of them are rows; who can be installed with whom is asked of a solver in
a process of its own. Nothing here changes a release: what is found is recorded, and the gate `no-conflicts` reads it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.run import CommandError, run
from cleanroom_base.settings import Settings
from cleanroom_db import conflicts, packages
from cleanroom_db.conflicts import Candidate, CandidatePackage, Check, Conflict, ConflictKind, Place
from cleanroom_db.connection import Database
from cleanroom_db.packages import PackageContents
from cleanroom_master.conflicts import contents
from cleanroom_master.conflicts.base import Base, Bases, ImageBases, no_base
from cleanroom_master.files import FileStore
from cleanroom_master.places import Places

_FORMATS = ("deb", "rpm")
_SOLVER_TIMEOUT = 90.0
# Debian's own interpreter: it is the one that sees Debian's package python3-solv.
PYTHON = "/usr/bin/python3"
_PROGRAM = Path(__file__).with_name("solver.py")
# So long, in seconds, packages are read that were published before their contents were recorded.
READING = 15.0
_TOLD = 500
# Of one target of a release; more than a person reads.
_CONFLICTS = 50
_RPM_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7hl", "i386": "i686", "ppc64el": "ppc64le"}


@dataclass(frozen=True, slots=True)
class Looked:
    """A place with everybody who is on the way into it."""

    place: Place
    candidates: tuple[Candidate, ...]
    checked: tuple[int, ...]
    basis: str

    def packages(self, form: str) -> dict[int, CandidatePackage]:
        """All packages of a format that candidates have and that could be read, by their ids."""
        return {one.id: one for candidate in self.candidates for one in candidate.of(form) if one.id is not None}


@dataclass(frozen=True, slots=True)
class Combination:
    """Packages, by their ids, that can be installed at once, and those that cannot be among them.

    Not `whole`: what is published is not among either, since it is too much.
    """

    together: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    whole: bool = True


@dataclass
class _Found:
    """What was found so far: conflicts by release and target, and how many packages were looked at."""

    conflicts: dict[tuple[int, str], list[Conflict]] = field(default_factory=dict)
    packages: dict[str, int] = field(default_factory=dict)
    assumed: bool = False


class Checker:
    """Checks of one process, with its connection to the record."""

    def __init__(self, database: Database, stores: Sequence[FileStore], bases: Bases = no_base) -> None:
        """`stores` are where the files of packages are, by the digest of what was built or of what was published."""
        self._database = database
        self._stores = stores
        self._bases = bases

    @classmethod
    def of(cls, settings: Settings, database: Database) -> Checker:
        """The checker of an installation."""
        places = Places(settings)
        stores = (FileStore(places.artifacts), FileStore(places.published / "pool"))
        return cls(database, stores, ImageBases(settings))

    def look(self, place: Place, releases: Sequence[int], beside: Sequence[int] = ()) -> Looked:
        """Who is on the way into a place beside some releases, and what tells this state from another.

        `beside` are releases that count to them though they do not wait for publication yet.
        """
        found = conflicts.candidates(self._database, place, [*releases, *beside])
        return Looked(place, tuple(found), tuple(releases), conflicts.basis(self._database, place, found))

    def check(self, place: Place, releases: Sequence[int]) -> dict[int, list[Check]]:
        """What breaks with some releases in a place, by release, a check for each of their targets there.

        Raises InfrastructureError when that cannot be found out now.
        """
        self.read_candidates(place, releases)
        left = self.read_published(READING, place)
        looked = self.look(place, releases)
        found = _Found()
        for form in _FORMATS:
            self._check(looked, form, found)
        return self._checks(looked, found, left)

    def together(self, place: Place, release: int, form: str, *, most: int, beside: Sequence[int] = ()) -> Combination:
        """The packages that can be installed with those of a release at once.

        What is published is among them where the place has at most so many packages; so are those of the releases
        `beside`. Raises InfrastructureError.
        """
        self.read_candidates(place, [release, *beside])
        self.read_published(READING, place)
        looked = self.look(place, [release], beside)
        if not any(one.of(form) for one in looked.candidates if one.release == release):
            return Combination()
        with self._bases(place.image) as base:
            answer = self._solve(looked, form, base, [], union=most)
        return Combination(tuple(answer["together"]), tuple(answer["left_out"]), answer["whole"])

    def kept(self, sha256: str, published: str | None = None) -> Path:
        """Where the file of a package is, as built or as published. Raises InfrastructureError when it is gone."""
        for digest in (sha256, *([published] if published else [])):
            for store in self._stores:
                path = store.path(digest)
                if path.is_file():
                    return path
        raise InfrastructureError(f"the kept file with the sha256 {sha256} is gone")

    def read_candidates(self, place: Place, releases: Sequence[int]) -> None:
        """Read the packages of candidates that were not read yet."""
        for candidate in conflicts.candidates(self._database, place, releases):
            for package in (one for some in candidate.packages.values() for one in some):
                if package.id is None:
                    self.read(package.sha256, package.kind, package.file)

    def read(self, sha256: str, kind: str, file: str, published: str | None = None) -> bool:
        """Record what a kept package holds; False where its file is not there.

        `published` is the digest of its bytes as published, where signing changed them.
        """
        try:
            path = self.kept(sha256, published)
        except InfrastructureError:
            return False
        packages.record(self._database, sha256, _contents(path, kind, file))
        return True

    def read_published(self, seconds: float, place: Place | None = None) -> int:
        """Read, for so long, published packages that were not read yet, and say how many are left."""
        end = time.monotonic() + seconds
        unread = conflicts.unread(self._database, place)
        gone = 0
        for number, one in enumerate(unread):
            if time.monotonic() > end:
                return len(unread) - number + gone
            gone += not self.read(one.built_sha256, one.format, one.file, one.sha256)
        return gone

    def _check(self, looked: Looked, form: str, found: _Found) -> None:
        together = looked.packages(form)
        checked = {
            one.id: (candidate.release, target, one)
            for candidate in looked.candidates
            if candidate.release in looked.checked
            for target, some in candidate.packages.items()
            for one in some
            if one.kind == form and one.id is not None and one.problem is None
        }
        if not checked:
            return
        shared = conflicts.shared(self._database, looked.place, checked, together)
        with self._bases(looked.place.image) as base:
            answer = self._solve(looked, form, base, [(one.package, one.other) for one in shared])
        found.assumed = found.assumed or (form == "deb" and not base.lists)
        for release in looked.checked:
            for target in {target for owner, target, _ in checked.values() if owner == release}:
                found.packages[target] = max(found.packages.get(target, 0), answer["packages"])
        names = _Names(self._database, looked, form, [*(one.other for one in shared), *_others(answer["findings"])])
        for one, clash in zip(shared, answer["shared"], strict=True):
            if clash:
                release, target, _ = checked[one.package]
                found.conflicts.setdefault((release, target), []).append(names.file(one))
        for one in answer["findings"]:
            release, target, _ = checked[one["package"]]
            found.conflicts.setdefault((release, target), []).append(names.dependency(one))

    def _solve(
        self, looked: Looked, form: str, base: Base, pairs: Sequence[tuple[int, int]], union: int = 0
    ) -> dict[str, Any]:
        together = looked.packages(form)
        ids, text = conflicts.published(self._database, looked.place, form, without=together)
        paired = conflicts.named(self._database, {number for pair in pairs for number in pair})
        question = {
            "format": form,
            "architecture": _architecture(base, form, together.values()),
            "base": [str(path) for path in base.lists] if form == "deb" else [],
            "remembered": str(base.remembered) if base.remembered is not None else None,
            # An rpm's own phase `install` has shown, with nothing but its own packages, that the system has the rest.
            "open": form == "rpm" or not base.lists,
            "known": conflicts.held_names(self._database, looked.place, form),
            "published": {"ids": ids, "text": text},
            "candidates": [_given(candidate, form) for candidate in looked.candidates],
            "checked": list(looked.checked),
            "union": union,
            "pairs": [list(pair) for pair in pairs],
            "replaces": {number: _replaces(row["relations"]) for number, row in paired.items()},
        }
        return ask(question)

    def _checks(self, looked: Looked, found: _Found, left: int) -> dict[int, list[Check]]:
        notes = [f"{left} published packages are not read yet"] if left else []
        notes += ["the distribution's packages are not known here"] if found.assumed else []
        answer: dict[int, list[Check]] = {}
        for candidate in looked.candidates:
            if candidate.release in looked.checked:
                answer[candidate.release] = [
                    Check(
                        target,
                        looked.basis,
                        found.packages.get(target, 0),
                        "; ".join(notes),
                        tuple([*_unreadable(some), *found.conflicts.get((candidate.release, target), [])][:_CONFLICTS]),
                    )
                    for target, some in candidate.packages.items()
                ]
        return answer


class _Names:
    """What packages are called when people are told of them."""

    def __init__(self, database: Database, looked: Looked, form: str, published: Iterable[int]) -> None:
        self._channel = looked.place.channel
        self._mine = looked.packages(form)
        self._releases = {
            one.id: candidate for candidate in looked.candidates for one in candidate.of(form) if one.id is not None
        }
        self._candidates = {candidate.release: candidate for candidate in looked.candidates}
        self._published = conflicts.named(database, [one for one in published if one not in self._mine])

    def file(self, one: conflicts.Shared) -> Conflict:
        """Two packages have the same path."""
        candidate = self._releases.get(one.other)
        more = f" and {one.number - 1} more paths" if one.number > 1 else ""
        why = f"{self._full(one.package)} and {self._full(one.other)} ({self._where(one.other)}) both have {one.path}"
        return Conflict(
            ConflictKind.FILE,
            self._name(one.package),
            self._name(one.other),
            None if candidate is None else candidate.release,
            one.path,
            f"{why}{more}",
        )

    def dependency(self, found: Mapping[str, Any]) -> Conflict:
        """Packages cannot be installed, alone or together."""
        package, other, release = found["package"], found["other"], found["with_release"]
        text = str(found["text"])[:_TOLD]
        if other is not None:
            with_what = f" with {self._full(other)} ({self._where(other)})"
        elif release is not None:
            with_what = f" with {self._candidate(release)}"
        else:
            with_what = ""
        return Conflict(
            ConflictKind.DEPENDENCY,
            self._name(package),
            None if other is None else self._name(other),
            release,
            text,
            f"{self._full(package)} cannot be installed{with_what}: {text}",
        )

    def _where(self, package: int) -> str:
        candidate = self._releases.get(package)
        return f"published in {self._channel}" if candidate is None else self._candidate(candidate.release)

    def _candidate(self, release: int) -> str:
        candidate = self._candidates[release]
        return f"{candidate.product} {candidate.ref}, which waits too"

    def _name(self, package: int) -> str:
        return self._full(package).partition(" ")[0]

    def _full(self, package: int) -> str:
        if package in self._mine:
            return f"{self._mine[package].name} {self._mine[package].version}"
        row = self._published.get(package)
        return "a package" if row is None else f"{row['name']} {row['version']}"


def ask(question: Mapping[str, Any]) -> dict[str, Any]:
    """Have the solver answer. Raises InfrastructureError when it cannot, or not in its time."""
    try:
        printed = run([PYTHON, "-I", _PROGRAM], stdin=json.dumps(question).encode(), timeout=_SOLVER_TIMEOUT).stdout
        answer = json.loads(printed)
    except CommandError as error:
        raise InfrastructureError(
            f"the solver gave no answer: {error.message}", hint="it needs Debian's package python3-solv"
        ) from error
    except ValueError as error:
        raise InfrastructureError(f"the solver gave no answer that can be read: {error}") from error
    assert isinstance(answer, dict)
    return answer


def solver_works() -> bool:
    """Whether there is a solver on this machine."""
    try:
        return run([PYTHON, "-I", "-c", "import solv"], timeout=_SOLVER_TIMEOUT, check=False).exit_status == 0
    except InfrastructureError:
        return False


def _contents(path: Path, kind: str, file: str) -> PackageContents:
    """What a package holds; one that cannot be read is known as such, and not read again and again."""
    try:
        return contents.read(path, kind)
    except InputError as error:
        return PackageContents(kind, file, "", "", "", problem=str(error)[:_TOLD])


def _given(candidate: Candidate, form: str) -> dict[str, Any]:
    some = [one for one in candidate.of(form) if one.id is not None]
    between = "" if form == "rpm" else "\n"
    return {
        "release": candidate.release,
        "ids": [one.id for one in some],
        "text": between.join(one.relations or "" for one in some),
    }


def _unreadable(some: Iterable[CandidatePackage]) -> list[Conflict]:
    return [
        Conflict(ConflictKind.UNREADABLE, one.file, None, None, one.file, f"{one.file}: {one.problem}")
        for one in some
        if one.problem is not None
    ]


def _others(findings: Iterable[Mapping[str, Any]]) -> list[int]:
    return [one["other"] for one in findings if one["other"] is not None]


def _replaces(relations: str) -> str:
    found = [line.partition(":")[2].strip() for line in relations.split("\n") if line.startswith("Replaces:")]
    return found[0] if found else ""


def _architecture(base: Base, form: str, some: Iterable[CandidatePackage]) -> str:
    """The architecture of a place, as the format calls it."""
    if base.architecture is not None:
        return _RPM_ARCHITECTURES.get(base.architecture, base.architecture) if form == "rpm" else base.architecture
    own = sorted({one.architecture for one in some if one.architecture} - {"all", "noarch"})
    return own[0] if own else ("x86_64" if form == "rpm" else "amd64")

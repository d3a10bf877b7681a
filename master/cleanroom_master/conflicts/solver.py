"""Which packages can be installed, and which not together: a program of its own, run by Debian's Python.

It reads a question as JSON from standard input and answers as JSON (see `Question` in check.py). The solver is libsolv,
dnf's own, which knows Debian's relations too; its binding with those is Debian's package python3-solv, which the
interpreter of a virtual environment does not see. What it reads came out of guests, so it is a process with limits.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import solv

_MEMORY = 4 << 30
# The packages that need one of a candidate's, and those that need these: so many are tried with it.
_TOUCHED = 100
# Of two releases that cannot be installed together, so many pairs of packages are tried.
_PAIRS = 200
_FINDINGS = 20


class Universe:
    """All packages of a question. Which of them count is a view: the releases that take part."""

    def __init__(self, question: dict[str, Any]) -> None:
        debian = question["format"] != "rpm"
        self.debian = debian
        self.pool = solv.Pool()
        if self.pool.setdisttype(solv.Pool.DISTTYPE_DEB if debian else solv.Pool.DISTTYPE_RPM) < 0:
            sys.exit("this libsolv does not know the relations of that format")
        self.pool.setarch(question["architecture"])
        self.base = bool(question["base"])
        if self.base:
            self._distribution(question["base"], question["remembered"])
        self.package: dict[int, Any] = {}
        self.identity: dict[int, int] = {}
        self.release: dict[int, int | None] = {}
        self._ours(None, question["published"])
        for candidate in question["candidates"]:
            self._ours(candidate["release"], candidate)
        self.replaced = {int(number): text for number, text in question["replaces"].items()}
        self.by_name: dict[str, list[int]] = {}
        for number, package in self.package.items():
            self.by_name.setdefault(package.name, []).append(number)
        self.pool.createwhatprovides()
        self.of_base = self._of_base()
        if question["open"]:
            self._assume(set(question["known"]))
        # What no release under way has counts alike in every view.
        self._contested = {self.package[number].name for number, owner in self.release.items() if owner is not None}
        self._common = self._seen(self.by_name.keys() - self._contested, frozenset())
        self._views: dict[frozenset[int], tuple[set[int], list[int]]] = {}

    def active(self, releases: Iterable[int]) -> set[int]:
        """The packages that a consumer gets where these releases are published: the newest of each name."""
        return self._view(frozenset(releases))[0]

    def problem(self, releases: Iterable[int], wanted: Iterable[int]) -> str:
        """Why some packages cannot be installed together in a view; empty when they can."""
        active, disabled = self._view(frozenset(releases))
        jobs = [
            self.pool.Job(solv.Job.SOLVER_INSTALL | solv.Job.SOLVER_SOLVABLE, self.package[number].id)
            for number in wanted
            if number in active
        ]
        self.pool.set_disabled_list(disabled)
        # The problems are the solver's: it must outlive them.
        solver = self.pool.Solver()
        problems = solver.solve(jobs)
        return "; ".join([_told(problem) for problem in problems[:2]])

    def touched(self, releases: Iterable[int], numbers: Iterable[int]) -> list[int]:
        """Packages of a view that need one of some, or one that needs such a one, nearest first."""
        active = self.active(releases)
        found = dict.fromkeys(numbers)
        # What needed an earlier version is the first that may miss something in the new one.
        queue = [other for number in found for other in self.by_name[self.package[number].name]]
        mine = len(found)
        for number in queue:
            for dependent in self.pool.whatmatchessolvable(solv.SOLVABLE_REQUIRES, self.package[number]):
                other = self.identity.get(dependent.id)
                if other is not None and other in active and other not in found:
                    found[other] = None
                    queue.append(other)
                    if len(found) - mine >= _TOUCHED:
                        return list(found)[mine:]
        return list(found)[mine:]

    def excluded(self, number: int) -> list[tuple[int, bool]]:
        """The packages that one excludes, or that exclude it; each with whether every version of it is."""
        package = self.package[number]
        found: dict[int, bool] = {}
        for relation in package.lookup_deparray(solv.SOLVABLE_CONFLICTS):
            for other in self.pool.whatprovides(relation):
                self._note(found, other, _unversioned(relation))
        for other in self.pool.whatmatchessolvable(solv.SOLVABLE_CONFLICTS, package):
            whole = any(
                _unversioned(relation)
                for relation in other.lookup_deparray(solv.SOLVABLE_CONFLICTS)
                if package.matchesdep(solv.SOLVABLE_PROVIDES, relation)
            )
            self._note(found, other, whole)
        found.pop(number, None)
        return list(found.items())

    def replaces(self, one: int, other: int) -> bool:
        """Whether one of two packages takes over the other's files, or excludes it."""
        if any(number == other for number, _ in self.excluded(one)):
            return True
        return self.obsoletes(one, other) or self.obsoletes(other, one)

    def obsoletes(self, one: int, other: int) -> bool:
        """Whether a package says that it replaces another: Debian's Replaces, and rpm's Obsoletes."""
        package = self.package[other]
        if not self.debian:
            relations = self.package[one].lookup_deparray(solv.SOLVABLE_OBSOLETES)
        else:
            # libsolv forgets what is replaced and not excluded too.
            relations = [self._relation(_spaced(part)) for part in self.replaced[one].split(",") if part.strip()]
        return any(
            str(relation).split(" ")[0] == package.name and package.matchesdep(solv.SOLVABLE_PROVIDES, relation)
            for relation in relations
        )

    def _note(self, found: dict[int, bool], other: Any, whole: bool) -> None:
        number = self.identity.get(other.id)
        if number is not None:
            found[number] = found.get(number, False) or whole

    def _distribution(self, paths: Sequence[str], remembered: str | None) -> None:
        """Read the distribution's lists, or what was `remembered` of them in the solver's own form."""
        repository = self.pool.add_repo("distribution")
        if remembered is not None and repository.add_solv(remembered):
            return
        for path in paths:
            if not repository.add_debpackages(solv.xfopen(path)):
                sys.exit(f"{path} cannot be read: {self.pool.errstr}")
        if remembered is not None:
            _remember(repository, remembered)

    def _ours(self, release: int | None, given: dict[str, Any]) -> None:
        repository = self.pool.add_repo("published" if release is None else str(release))
        descriptor = os.memfd_create("packages")
        # There is one architecture in a question: whose a package is does not matter.
        text = given["text"].replace(":any", "") if self.debian else "=Ver: 2.0\n" + given["text"]
        with os.fdopen(os.dup(descriptor), "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.lseek(descriptor, 0, os.SEEK_SET)
        stream = solv.xfopen_fd("packages", descriptor)
        read = repository.add_debpackages(stream) if self.debian else repository.add_susetags(stream, 0, None, 0)
        # The binding works with a copy of the descriptor.
        os.close(descriptor)
        packages = list(repository.solvables)
        if not read or len(packages) != len(given["ids"]):
            sys.exit(f"{len(packages)} of {len(given['ids'])} packages could be read: {self.pool.errstr}")
        for number, package in zip(given["ids"], packages, strict=True):
            self.package[number] = package
            self.identity[package.id] = number
            self.release[number] = release

    def _of_base(self) -> dict[str, list[Any]]:
        """The base's packages of the names that are ours too."""
        found: dict[str, list[Any]] = {}
        for name, numbers in self.by_name.items() if self.base else ():
            word = self.package[numbers[0]].nameid
            same = [one for one in self.pool.whatprovides(word) if one.nameid == word and one.id not in self.identity]
            if same:
                found[name] = same
        return found

    def _view(self, releases: frozenset[int]) -> tuple[set[int], list[int]]:
        if releases not in self._views:
            active, disabled = self._seen(self._contested, releases)
            self._views[releases] = (self._common[0] | active, self._common[1] + disabled)
        return self._views[releases]

    def _seen(self, names: Iterable[str], releases: frozenset[int]) -> tuple[set[int], list[int]]:
        """Of the packages of these names, those that count where these releases are published, and what does not."""
        active: set[int] = set()
        disabled: list[int] = []
        for name in names:
            numbers = self.by_name[name]
            newest: int | None = None
            for number in numbers:
                owner = self.release[number]
                if owner is not None and owner not in releases:
                    continue
                if newest is None or self.package[newest].evrcmp(self.package[number]) <= 0:
                    newest = number
            disabled += [self.package[number].id for number in numbers if number != newest]
            if newest is not None:
                active.add(newest)
                disabled += [one.id for one in self.of_base.get(name, ()) if one.evrcmp(self.package[newest]) <= 0]
        return active, disabled

    def _assume(self, known: set[str]) -> None:
        """What nobody of ours has, whatever the version, is taken to be the distribution's, but for known names."""
        names: dict[str, None] = {}
        relations: set[int] = set()
        for package in self.package.values():
            relations.update(package.lookup_idarray(solv.SOLVABLE_REQUIRES))
        for relation in sorted(relations):
            names |= dict.fromkeys(_alternatives(self.pool.dep2str(relation)))
        # All are asked for first: adding a package takes the solver's tables away.
        missing = [text for text in names if not (text.split(" ")[0] in known or self._provided(text.split(" ")[0]))]
        repository = self.pool.add_repo("assumed")
        assumed: dict[str, Any] = {}
        for text in missing:
            name = text.split(" ")[0]
            if name not in assumed:
                package = assumed[name] = repository.add_solvable()
                package.name, package.evr, package.arch = f"assumed:{name}", "0", "all" if self.debian else "noarch"
                package.add_deparray(solv.SOLVABLE_PROVIDES, self.pool.Dep(name))
            assumed[name].add_deparray(solv.SOLVABLE_PROVIDES, self._relation(text))
        self.pool.createwhatprovides()

    def _provided(self, name: str) -> bool:
        known = self.pool.str2id(name, False)
        return bool(known and self.pool.whatprovides(known))

    def _relation(self, text: str) -> Any:
        """A relation as the solver writes it, `name` or `name operator version`."""
        name, _, rest = text.partition(" ")
        operator, _, version = rest.partition(" ")
        if operator not in _FLAGS or not version:
            return self.pool.Dep(name)
        return self.pool.Dep(name).Rel(_FLAGS[operator], self.pool.Dep(version))


def _remember(repository: Any, file: str) -> None:
    """Keep a repository in the solver's own form; where that cannot be, the next one reads the lists again."""
    unfinished = f"{file}.{os.getpid()}"
    stream = solv.xfopen(unfinished, "w")
    if stream is None:
        return
    written = repository.write(stream)
    if stream.close() and written:
        Path(unfinished).replace(file)
    else:
        Path(unfinished).unlink()


_OR = re.compile(r" (?:\||or|and|if|unless|else|with|without) ")


def _alternatives(relation: str) -> list[str]:
    """The simple relations in one; rich ones of rpm are taken apart at their words."""
    parts = _OR.split(relation)
    return [part.strip(" ()") for part in parts if part.strip()] if len(parts) > 1 else parts


_FLAGS = {"<": solv.REL_LT, "<<": solv.REL_LT, ">": solv.REL_GT, ">>": solv.REL_GT, "=": solv.REL_EQ}
_FLAGS |= {"<=": solv.REL_LT | solv.REL_EQ, ">=": solv.REL_GT | solv.REL_EQ}


def _spaced(relation: str) -> str:
    """`name (>= 1)`, as Debian's control data has it, without its brackets."""
    return " ".join(re.sub(r"([<>=]+)", r" \1 ", relation.replace("(", " ").replace(")", " ")).split())


def _unversioned(relation: Any) -> bool:
    return " " not in str(relation)


def _told(problem: Any) -> str:
    rules = [rule.info() for rule in problem.findallproblemrules()]
    said = dict.fromkeys(info.problemstr() for info in rules if info.type != solv.Solver.SOLVER_RULE_JOB)
    return "; ".join([text for text in said if not text.endswith(" is disabled")][-2:]) or str(problem)


class Examination:
    """One question: which of the checked releases break what, or cannot be installed."""

    def __init__(self, universe: Universe, question: dict[str, Any]) -> None:
        self.universe = universe
        self.checked: list[int] = question["checked"]
        self.everyone: list[int] = [candidate["release"] for candidate in question["candidates"]]
        self.packages: dict[int, list[int]] = {
            candidate["release"]: candidate["ids"] for candidate in question["candidates"]
        }
        self.findings: list[dict[str, Any]] = []

    def find(self) -> list[dict[str, Any]]:
        """All that was found."""
        for release in self.checked:
            self._excluding(release)
        whole = [number for release in self.everyone for number in self._newest(self.everyone, release)]
        touched = {release: self.universe.touched(self.everyone, self.packages[release]) for release in self.checked}
        together = dict.fromkeys([*whole, *(number for some in touched.values() for number in some)])
        # Nearly always everything can be installed at once, and all is said.
        if self.universe.problem(self.everyone, together):
            for release in self.checked:
                self._single(release, touched[release])
                self._pairs(release)
        return self.findings

    def union(self, most: int) -> tuple[list[int], list[int]]:
        """What can be installed at once with the checked releases, and what of the rest cannot."""
        active = self.universe.active(self.everyone)
        first = [number for release in self.checked for number in self._newest(self.everyone, release)]
        others = [number for release in self.everyone for number in self._newest(self.everyone, release)]
        rest = sorted(active) if len(active) <= most else others
        chosen: list[int] = []
        left_out: list[int] = []
        for some in (first, [number for number in others if number not in first]):
            self._join(some, chosen, left_out)
        self._join([number for number in rest if number not in {*chosen, *left_out}], chosen, left_out)
        return chosen, left_out

    def _join(self, some: Sequence[int], chosen: list[int], left_out: list[int]) -> None:
        if not some or not self.universe.problem(self.everyone, [*chosen, *some]):
            chosen += some
        elif len(some) == 1:
            left_out += some
        else:
            half = len(some) // 2
            self._join(some[:half], chosen, left_out)
            self._join(some[half:], chosen, left_out)

    def _newest(self, releases: Sequence[int], release: int) -> list[int]:
        active = self.universe.active(releases)
        return [number for number in self.packages[release] if number in active]

    def _add(self, release: int, package: int, other: int | None, with_release: int | None, text: str) -> None:
        told = {(one["release"], one["package"], one["other"]) for one in self.findings}
        if (release, package, other) not in told and len(self.findings) < _FINDINGS * len(self.checked):
            found = {"release": release, "package": package, "other": other, "with_release": with_release}
            self.findings.append({**found, "text": text})

    def _excluding(self, release: int) -> None:
        """Published packages that a release newly excludes, or that exclude it, in some versions only."""
        active = self.universe.active([release])
        for number in self._newest([release], release):
            for other, whole in self.universe.excluded(number):
                mine = self.universe.release[other] == release
                same = self.universe.package[other].name == self.universe.package[number].name
                if mine or same or whole or other not in active or self._as_before(number, other):
                    continue
                names = (self.universe.package[one].str() for one in (number, other))
                self._add(release, number, other, None, "{} and {} exclude each other".format(*names))

    def _as_before(self, number: int, other: int) -> bool:
        """Whether that was so with what is published of the two."""
        names = [self.universe.package[one].name for one in (number, other)]
        published = [one for name in names for one in self.universe.by_name[name] if one in self.universe.active([])]
        return len(published) == 2 and bool(self.universe.problem([], published))

    def _single(self, release: int, touched: Sequence[int]) -> None:
        """Packages that cannot be installed by themselves any more."""
        universe = self.universe
        for number in self._newest(self.everyone, release):
            if text := universe.problem(self.everyone, [number]):
                culprits: Sequence[int | None] = self._culprits(release, number) or [None]
                for other in culprits:
                    self._add(release, number, None, other, text)
        without = [other for other in self.everyone if other != release]
        for number in touched:
            owner = universe.release[number]
            text = universe.problem(self.everyone, [number]) if owner != release else ""
            if text and self._breaks(release, without, [] if owner is None else [owner], number):
                self._add(release, self._cause(release, number), number, owner, text)

    def _breaks(self, release: int, without: Sequence[int], owner: Sequence[int], number: int) -> bool:
        """Whether a package that cannot be installed could be without a release."""
        if not self.universe.problem(without, [number]):
            return True
        alone = self.universe.problem(owner, [number])
        return bool(not alone and self.universe.problem([release, *owner], [number]))

    def _cause(self, release: int, number: int) -> int:
        """The package of a release that another one needs."""
        required = self.universe.package[number].lookup_deparray(solv.SOLVABLE_REQUIRES)
        for mine in self.packages[release]:
            names = {self.universe.package[mine].name}
            if any(str(one).split(" ")[0] in names for one in required):
                return mine
        return self.packages[release][0]

    def _culprits(self, release: int, number: int) -> list[int]:
        """The other candidates without which a package of a release could be installed; all, where it takes several.

        None, where it cannot be installed alone either.
        """
        others = [other for other in self.everyone if other != release]
        found = [
            other
            for other in others
            if not self.universe.problem([one for one in self.everyone if one != other], [number])
        ]
        return found or ([] if self.universe.problem([release], [number]) else others)

    def _pairs(self, release: int) -> None:
        """Packages of two candidates that can be installed, but not together."""
        universe = self.universe
        for other in self.everyone:
            if other == release or any(
                one["release"] == release and one["with_release"] == other for one in self.findings
            ):
                continue
            both = [release, other]
            mine, theirs = self._newest(both, release), self._newest(both, other)
            if not universe.problem(both, [*mine, *theirs]):
                continue
            for one, two in [(one, two) for one in mine for two in theirs][:_PAIRS]:
                deliberate = any(number == two and whole for number, whole in universe.excluded(one)) or (
                    not universe.debian and (universe.obsoletes(one, two) or universe.obsoletes(two, one))
                )
                text = "" if deliberate else universe.problem(both, [one, two])
                single = text and not (universe.problem(both, [one]) or universe.problem(both, [two]))
                if single and not self._as_before(one, two):
                    self._add(release, one, two, other, text)


def main() -> None:
    """Answer one question."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    question = json.load(sys.stdin)
    universe = Universe(question)
    examination = Examination(universe, question)
    if question.get("union"):
        together, left_out = examination.union(question["union"])
        whole = len(universe.active(examination.everyone)) <= question["union"]
        json.dump({"together": together, "left_out": left_out, "whole": whole}, sys.stdout)
        return
    active = universe.active(examination.everyone)
    shared = [
        one in active and other in active and not universe.replaces(one, other) for one, other in question["pairs"]
    ]
    answer = {"shared": shared, "findings": examination.find(), "packages": len(active)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()

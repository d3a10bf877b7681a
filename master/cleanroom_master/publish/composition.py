"""What a generation consists of, out of what an earlier one has: the runs that stay, and those that are made anew."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cleanroom_base.errors import Problem
from cleanroom_master.publish import apt, pieces, yum
from cleanroom_master.publish.generation import RUN, Generation, Part, PartName, Run, listing, part_of
from cleanroom_master.publish.package import Package, VersionConflict, conflicts
from cleanroom_master.publish.pieces import Pieces
from cleanroom_master.publish.pool import Pool

# Up to so many new packages are looked for in the listings; of more, a table of all packages is made once.
_FEW = 50
# A part whose runs have become so many more than needed is put together anew.
_SPARE_RUNS = 8


@dataclass(frozen=True)
class Composition:
    """The parts of a generation, and of its new runs the listings (by sha256) and the pieces of the indexes."""

    parts: dict[PartName, Part] = field(default_factory=dict)
    listings: dict[str, bytes] = field(default_factory=dict)
    fresh: Pieces = field(default_factory=dict)


def compose(pool: Pool, start: Generation | None, added: Iterable[Package], removed: Iterable[Package]) -> Composition:
    """What `start` has (None: nothing), without `removed` and with `added`.

    Raises VersionConflict when one version would be there with two contents.
    """
    coming, going = _by_part(added), _by_part(removed)
    composition = Composition(dict(start.parts) if start is not None else {})
    for name in sorted({*coming, *going}):
        composer = _Composer(pool, start, name, composition)
        runs = composer.compose(coming.get(name, []), going.get(name, []))
        composition.parts[name] = Part(name, tuple(runs))
    return composition


def index_names(name: PartName) -> tuple[str, ...]:
    """The kinds of index that tell of a part."""
    return apt.index_names(name) if name.stream.family == "apt" else yum.INDEXES


class _Composer:
    """Makes the runs of one part."""

    def __init__(self, pool: Pool, start: Generation | None, name: PartName, composition: Composition) -> None:
        self._pool = pool
        self._start = start
        self._name = name
        self._composition = composition
        self._old = start.part(name.stream, name.architecture).runs if start is not None else ()

    def compose(self, added: Sequence[Package], removed: Sequence[Package]) -> list[Run]:
        listings = self._listings()
        runs = [one for run in self._old for one in self._without(run, removed, listings)]
        there = set(removed)
        self._require_no_conflict([package for package in added if package not in there], removed, listings)
        fresh = sorted(added)
        if runs and fresh and runs[-1].packages < RUN:
            fresh = [*self._packages(runs.pop()), *fresh]
        runs += [self._run(fresh[first : first + RUN]) for first in range(0, len(fresh), RUN)]
        if len(runs) > 2 * -(-sum(run.packages for run in runs) // RUN) + _SPARE_RUNS:
            every = [package for run in runs for package in self._packages(run)]
            runs = [self._run(every[first : first + RUN]) for first in range(0, len(every), RUN)]
        return runs

    def _listings(self) -> dict[str, bytes]:
        """The listings of the runs that there are, as they are on the disk: to search in them costs little."""
        return {run.listing: self._start.listing_of(run) for run in self._old} if self._start is not None else {}

    def _without(self, run: Run, removed: Sequence[Package], listings: dict[str, bytes]) -> list[Run]:
        """A run without what is removed: itself where that is nothing, none where it is all."""
        if not any(f'"{package.sha256}"'.encode() in listings[run.listing] for package in removed):
            return [run]
        gone = set(removed)
        before = self._packages(run)
        left = [package for package in before if package not in gone]
        if len(left) == len(before):
            return [run]
        return [self._run(left)] if left else []

    def _require_no_conflict(
        self, added: Sequence[Package], removed: Sequence[Package], listings: dict[str, bytes]
    ) -> None:
        gone = set(removed)
        if len(added) > _FEW:
            there = [package for run in self._old for package in self._packages(run)]
        else:
            # As they stand at the end of a package's row.
            ends = [
                json.dumps([one.name, one.version, one.architecture])[1:].replace(", ", ",").encode() for one in added
            ]
            hit = [run for run in self._old if any(end in listings[run.listing] for end in ends)]
            there = [package for run in hit for package in self._packages(run)]
        problems: list[Problem] = conflicts([*(one for one in there if one not in gone), *added])
        if problems:
            raise VersionConflict("the same version of a package was published with other bytes", problems=problems)

    def _packages(self, run: Run) -> list[Package]:
        made = self._composition.listings.get(run.listing)
        if made is not None:
            return [Package(*values) for values in json.loads(made)["packages"]]
        assert self._start is not None
        return self._start.listed(run)

    def _run(self, packages: Sequence[Package]) -> Run:
        content, sha256 = listing(packages)
        facts = [self._pool.facts(package.sha256) for package in packages]
        entry = apt.entry if self._name.stream.family == "apt" else yum.entry
        sizes = {}
        for index in index_names(self._name):
            piece = pieces.pack(b"".join(entry(one, index) for one in facts))
            self._composition.fresh[index, sha256] = piece
            sizes[index] = (piece.plain, len(piece.packed))
        self._composition.listings[sha256] = content
        return Run(sha256, len(packages), sizes)


def _by_part(packages: Iterable[Package]) -> dict[PartName, list[Package]]:
    found: dict[PartName, list[Package]] = defaultdict(list)
    for package in dict.fromkeys(packages):
        found[part_of(package)].append(package)
    return found

"""Which product depends on which: what recipes say, and what was found in builds and in packages.

What a product needs is recorded by name; on which product that makes it depend follows from what is published now.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from cleanroom_db.connection import Cursor, Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import DependencyOrigin, TrialPurpose

_SQL = load("dependencies")


@dataclass(frozen=True)
class Dependency(Entity):
    """A product depends on another; `packages` are those of the other by which that was found."""

    product: str
    depends_on: str
    origin: DependencyOrigin
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Queued(Entity):
    """A release or a trial that is not at its end; `waits_for` are others, by name."""

    kind: str
    purpose: TrialPurpose | None
    id: int
    product: str
    ref: str
    channel: str
    state: str
    why: str
    created_at: datetime
    waits_for: tuple[str, ...]
    subject: str | None


@dataclass(frozen=True)
class Graph:
    """Products with those they depend on.

    `order`: each after all on which it depends, but for those of a cycle. `cycles`: products that depend on each
    other, each cycle in the order in which one depends on the next.
    """

    needs: Mapping[str, frozenset[str]]
    order: tuple[str, ...]
    cycles: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Graph:
        """The graph of pairs of a product and one on which it depends."""
        needs: dict[str, set[str]] = {}
        for product, depends_on in pairs:
            needs.setdefault(product, set()).add(depends_on)
            needs.setdefault(depends_on, set())
        open_needs = {product: set(found) for product, found in sorted(needs.items())}
        cycles: list[tuple[str, ...]] = []
        while True:
            try:
                sorter = graphlib.TopologicalSorter({name: sorted(found) for name, found in open_needs.items()})
                order = tuple(sorter.static_order())
            except graphlib.CycleError as error:
                # It names each before one that depends on it, and the first again at the end.
                found = tuple(reversed(error.args[1][1:]))
                cycles.append(_from_first(found))
                for product in found:
                    open_needs[product] -= set(found)
            else:
                return cls({name: frozenset(found) for name, found in needs.items()}, order, tuple(sorted(cycles)))

    def dependents(self, product: str) -> list[str]:
        """The products that directly depend on one, in order."""
        return [name for name in self.order if product in self.needs[name]]

    def cycle(self, product: str) -> tuple[str, ...]:
        """The first cycle of which a product is a part; empty if there is none."""
        return next((cycle for cycle in self.cycles if product in cycle), ())

    def ordered_pairs(self) -> list[tuple[str, str]]:
        """The pairs by which work can be ordered: those that go against the order, in cycles, are left out."""
        place = {name: index for index, name in enumerate(self.order)}
        return [(name, other) for name in self.order for other in self.needs[name] if place[other] < place[name]]


def declare(cursor: Cursor, recipes: Mapping[str, Iterable[str]]) -> None:
    """Keep which products recipes name, by the product whose recipe it is."""
    cursor.execute(_SQL["forget_declared"], products=list(recipes))
    rows = [(product, "", DependencyOrigin.RECIPE, name) for product, names in recipes.items() for name in names]
    cursor.insert_many(_SQL["insert"], rows)


def record(database: Database, product: str, target: str, needs: Iterable[tuple[DependencyOrigin, str]]) -> None:
    """Keep the packages that a build of a product on a target used, and those that its packages name."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["forget_found"], product=product, target=target)
        cursor.insert_many(_SQL["insert"], [(product, target, origin, plain(name)) for origin, name in needs])


def list_all(database: Database) -> list[Dependency]:
    """All dependencies, with how each is known."""
    with database.transaction() as cursor:
        return _all(cursor)


def graph(cursor: Cursor) -> Graph:
    """All dependencies as a graph."""
    return Graph.of((one.product, one.depends_on) for one in _all(cursor))


def wait(cursor: Cursor, releases: Iterable[int]) -> None:
    """Have new releases wait for those of the products on which theirs depend."""
    pairs = graph(cursor).ordered_pairs()
    if pairs:
        products, depends_on = zip(*pairs, strict=True)
        cursor.execute(_SQL["wait"], releases=list(releases), products=products, depends_on=depends_on)


def queue(database: Database) -> tuple[list[Queued], Graph]:
    """All releases and trials that are not at their end, in order of dependency, and the products' graph."""
    with database.transaction() as cursor:
        rows = [Queued.from_row(row) for row in cursor.rows(_SQL["queue"])]
        found = graph(cursor)
    place = {name: index for index, name in enumerate(found.order)}
    # Stable: of one product, and of products without dependencies, the first comes first.
    return sorted(rows, key=lambda one: (one.kind != "release", place.get(one.product, -1))), found


def _all(cursor: Cursor) -> list[Dependency]:
    return [Dependency.from_row(row) for row in cursor.rows(_SQL["all"])]


def _from_first(cycle: tuple[str, ...]) -> tuple[str, ...]:
    """The same cycle, begun with the product whose name comes first."""
    begin = cycle.index(min(cycle))
    return cycle[begin:] + cycle[:begin]

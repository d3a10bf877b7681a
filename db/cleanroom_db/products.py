"""Products: the git repositories that are watched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cleanroom_base.errors import InputError
from cleanroom_db.connection import Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import SignaturePolicy

_SQL = load("products")


class UnknownProduct(InputError):
    """There is no product of this name."""


@dataclass(frozen=True)
class Product(Entity):
    """A watched repository. `recipe` None: the product's own file is used; `watched_at` None: never looked at.

    `existing`: the first look releases the tags that are there.
    """

    name: str
    url: str
    recipe: Mapping[str, Any] | None
    tag_patterns: tuple[str, ...]
    branches: tuple[str, ...]
    signature_policy: SignaturePolicy
    existing: bool
    created_at: datetime
    removed_at: datetime | None
    watched_at: datetime | None
    watch_error: str | None


def add(
    database: Database,
    name: str,
    url: str,
    *,
    recipe: Mapping[str, Any] | None = None,
    tag_patterns: tuple[str, ...] = ("*",),
    branches: tuple[str, ...] = (),
    signature_policy: SignaturePolicy = SignaturePolicy.OPTIONAL,
    existing: bool = False,
) -> Product:
    """Record a product; one that was removed comes back.

    With `existing` the first look releases the tags that are there. Raises InputError if it is watched already.
    """
    with database.transaction() as cursor:
        row = cursor.row(
            _SQL["add"],
            name=name,
            url=url,
            recipe=recipe,
            tag_patterns=tag_patterns,
            branches=branches,
            signature_policy=signature_policy,
            existing=existing,
        )
    if row is None:
        raise InputError(f"the product {name} is there already", hint=f"'cleanroom product remove {name}' comes first")
    return Product.from_row(row)


def get(database: Database, name: str) -> Product:
    """The product of this name, removed or not. Raises UnknownProduct."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["get"], name=plain(name))
    if row is None:
        raise UnknownProduct(f"there is no product {name!r}", hint="'cleanroom product list' shows all")
    return Product.from_row(row)


def list_watched(database: Database) -> list[Product]:
    """All products that are not removed, by name."""
    with database.transaction() as cursor:
        return [Product.from_row(row) for row in cursor.rows(_SQL["watched"])]


def remove(database: Database, name: str) -> None:
    """Watch a product no more; what was recorded stays. Raises UnknownProduct."""
    with database.transaction() as cursor:
        if cursor.execute(_SQL["remove"], name=plain(name)) == 0:
            raise UnknownProduct(f"there is no product {name!r}", hint="'cleanroom product list' shows all")


def lock(database: Database, name: str) -> Product:
    """Within a transaction: keep other recorders of this product's refs out until its end.

    Raises UnknownProduct, also for a removed one.
    """
    with database.transaction() as cursor:
        row = cursor.row(_SQL["lock"], name=plain(name))
    if row is None:
        raise UnknownProduct(f"there is no product {name!r}", hint="'cleanroom product list' shows all")
    return Product.from_row(row)


def looked(database: Database, name: str, error: str | None) -> None:
    """Note that a look at the repository went well (`error` None) or why it did not."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["looked"], name=name, error=None if error is None else plain(error))

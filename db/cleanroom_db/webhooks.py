"""Webhooks that came in, and the looks at repositories that they wish for; nothing else ever comes of one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cleanroom_db.connection import Database, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import Forge

_SQL = load("webhooks")


@dataclass(frozen=True)
class Delivery(Entity):
    """A webhook that was taken. `delivery` is the forge's own name for it."""

    id: int
    forge: Forge
    delivery: str
    digest: str
    event: str
    product: str
    received_at: datetime


def address(database: Database, product: str) -> str | None:
    """The URL of a watched product's repository; None: there is no such product."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["product"], name=plain(product))
    return None if row is None else str(row["url"])


def addresses(database: Database) -> list[tuple[str, str]]:
    """The names of all watched products, each with the URL of its repository."""
    with database.transaction() as cursor:
        return [(row["name"], row["url"]) for row in cursor.rows(_SQL["addresses"])]


def receive(
    database: Database,
    forge: Forge,
    delivery: str,
    digest: str,
    event: str,
    products: Iterable[str],
    *,
    kept: float,
) -> bool:
    """Note a webhook about the repository of some products, and wish for a look at each; False: it came before.

    `kept` is how many seconds webhooks are remembered.
    """
    names = sorted(products)
    with database.transaction() as cursor:
        cursor.execute(_SQL["forget"], seconds=kept)
        taken = cursor.row(
            _SQL["receive"],
            forge=forge,
            delivery=plain(delivery),
            digest=digest,
            event=plain(event),
            product=names[0],
        )
        if taken is None:
            return False
        for name in names:
            cursor.execute(_SQL["wish"], product=name)
    return True


def wishes(database: Database) -> dict[str, int]:
    """The products that are to be looked at before their turn, each with the number of the latest wish."""
    with database.transaction() as cursor:
        return {row["product"]: row["number"] for row in cursor.rows(_SQL["wishes"])}


def granted(database: Database, product: str, number: int) -> None:
    """A look has been taken that began when the wish with this number was the latest; a later one stays."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["granted"], product=product, number=number)


def latest(database: Database, product: str | None = None, *, limit: int = 50) -> list[Delivery]:
    """The latest webhooks that were taken, newest first."""
    named = None if product is None else plain(product)
    with database.transaction() as cursor:
        return [Delivery.from_row(row) for row in cursor.rows(_SQL["latest"], product=named, limit=limit)]

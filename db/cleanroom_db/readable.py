"""The record as somebody sees it who may read some products: the server leaves out the rows of all others.

Queries are the same as for everybody. They run as a role for which the policies of the migration 0023 hold, so that
what was forgotten is not shown: nothing is readable to that role but what a transaction says at its beginning.
"""

from __future__ import annotations

from collections.abc import Iterable

from cleanroom_db.connection import Database
from cleanroom_db.sql import load

_SQL = load("readable")


def of(database: Database, products: Iterable[str]) -> Database:
    """The record (as the role `reader`) with what belongs to some products, and what belongs to none."""
    names = sorted(products)
    return database.beginning(lambda cursor: cursor.execute(_SQL["limit"], products=names))

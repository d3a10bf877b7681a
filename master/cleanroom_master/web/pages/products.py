"""What is watched, and how does each of them stand?"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from cleanroom_db import dependencies, overview
from cleanroom_db import products as record_of
from cleanroom_db.overview import PRODUCTS, Filter
from cleanroom_master.web.site import Record
from cleanroom_master.web.templating import Render

router = APIRouter(include_in_schema=False)

_ACCOUNT = re.compile(r"//[^/@]*@")


@router.get("/products")
def products(
    record: Record,
    render: Render,
    name: Annotated[str, Query(max_length=100)] = "",
    after: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """All products by name."""
    found = overview.products(record, name.strip() or None, after=after)
    return render(
        "products.html",
        products=found[:PRODUCTS],
        name=name,
        after=found[PRODUCTS - 1].name if len(found) > PRODUCTS else None,
        present=overview.present(record),
    )


@router.get("/product/{name}")
def product(name: str, record: Record, render: Render) -> Response:
    """One product: what channels have of it, its latest releases, what it needs."""
    found = record_of.get(record, name)
    graph = dependencies.Graph.of((one.product, one.depends_on) for one in dependencies.list_all(record))
    return render(
        "product.html",
        product=found,
        # Some keep a password or a token in an address.
        url=_ACCOUNT.sub("//", found.url),
        channels=overview.in_channels(record, found.name),
        matrix=overview.matrix(record, Filter(exactly=found.name), limit=20),
        needs=sorted(graph.needs.get(found.name, ())),
        dependents=graph.dependents(found.name),
        cycle=graph.cycle(found.name),
    )

"""Products, releases, attempts, logs and tests."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import PlainTextResponse, Response

from cleanroom_db import comparisons, dependencies, histories, listings, overview, steps
from cleanroom_db import products as record_of
from cleanroom_db.listings import Case, Listed
from cleanroom_db.products import UnknownProduct
from cleanroom_db.states import ReleaseState
from cleanroom_db.view import release_view
from cleanroom_master.cli import comparing, test_cases
from cleanroom_master.web.api import models
from cleanroom_master.web.api.conditional import Conditional
from cleanroom_master.web.api.paging import LARGEST, LINK, After, Before, Limit, part
from cleanroom_master.web.pages import logs
from cleanroom_master.web.site import OfSite, Record

router = APIRouter(route_class=Conditional)

_ACCOUNT = re.compile(r"//[^/@]*@")
_LINE = ("name", "tag_patterns", "branches", "signature_policy", "created_at", "watched_at", "watch_error")
# Releases whose runs of a test are told.
_STRIP = 200

Id = Annotated[int, Path(ge=1, le=LARGEST)]
Name = Annotated[str, Path(min_length=1, max_length=100)]
Ref = Annotated[str, Query(min_length=1, max_length=300)]
Text = Annotated[str | None, Query(max_length=300)]


@router.get("/products", tags=["products"], responses=LINK)
def products(
    record: Record,
    request: Request,
    response: Response,
    name: Text = None,
    after: Annotated[str, Query(max_length=100, description="those after this one, as the Link header says")] = "",
    limit: Limit = 50,
) -> list[models.ProductLine]:
    """Watched products by name; `name` is a part of it."""
    found = listings.products(record, name, after, limit + 1)
    return [models.ProductLine(**_line(one)) for one in part(request, response, found, limit, "after", "name")]


@router.get("/products/{product}", tags=["products"])
def product(product: Name, record: Record) -> models.Product:
    """A product, what channels publish of it, what it needs and what needs it."""
    found = record_of.get(record, product)
    if found.removed_at is not None:
        raise UnknownProduct(f"there is no product {product[:100]!r}", hint="'cleanroom product list' shows all")
    known = dependencies.list_all(record)
    graph = dependencies.Graph.of((one.product, one.depends_on) for one in known)
    return models.Product(
        **_line(found),
        channels=[models.InChannel(**vars(one)) for one in overview.in_channels(record, found.name)],
        depends_on=[
            models.NeededProduct(product=one.depends_on, origin=one.origin, packages=list(one.packages))
            for one in known
            if one.product == found.name
        ],
        dependents=graph.dependents(found.name) if found.name in graph.needs else [],
        cycle=list(graph.cycle(found.name)),
    )


@router.get("/releases", tags=["releases"], responses=LINK)
def releases(
    record: Record,
    request: Request,
    response: Response,
    product: Text = None,
    ref: Text = None,
    channel: Text = None,
    state: ReleaseState | None = None,
    before: Before = None,
    limit: Limit = 50,
) -> list[Listed]:
    """Releases, newest first."""
    found = listings.releases(
        record, product=product, ref=ref, channel=channel, state=state, before=before, limit=limit + 1
    )
    return part(request, response, found, limit, "before", "id")


@router.get("/releases/{release}", tags=["releases"])
def release(release: Id, record: Record) -> models.Release:
    """A release with everything about it, as `cleanroom release show --format json` says it."""
    return models.Release.model_validate(release_view(record, *listings.name_of(record, release)))


@router.get("/products/{product}/release", tags=["releases"])
def release_of_product(product: Name, ref: Ref, record: Record) -> models.Release:
    """A release by the names of its product and its tag or commit."""
    return models.Release.model_validate(release_view(record, product, ref))


@router.get("/releases/{release}/comparison", tags=["releases"])
def comparison(release: Id, record: Record, against: Text = None) -> models.Comparison:
    """What became of a release's tests since another one; without `against` since what its channel publishes."""
    name, ref = listings.name_of(record, release)
    return models.Comparison.model_validate(comparing.view(comparisons.compare(record, name, ref, against or None)))


@router.get("/attempts/{attempt}", tags=["releases"])
def attempt(attempt: Id, record: Record) -> models.WholeAttempt:
    """An attempt with its phases and their steps."""
    found, phases = listings.attempt(record, attempt)
    return models.WholeAttempt(
        attempt=found, phases=[models.AttemptPhase(phase=phase, steps=own) for phase, own in phases]
    )


@router.get("/phases/{phase}/tests", tags=["tests"], responses=LINK)
def tests(
    phase: Id, record: Record, request: Request, response: Response, after: After = 0, limit: Limit = 200
) -> list[Case]:
    """The test cases of a phase, in the order in which they were recorded."""
    found = listings.cases(record, phase, after, limit + 1)
    return part(request, response, found, limit, "after", "id")


@router.get("/products/{product}/test", tags=["tests"])
def test_history(
    product: Name,
    record: Record,
    name: Annotated[str, Query(min_length=1, max_length=2000, description="the name of the test case")],
    channel: Text = None,
) -> models.TestHistory:
    """How one test case went from release to release, how often it passes, and since when it fails."""
    found = histories.history(record, product, name, channel=channel, releases=_STRIP)
    shown = {"product": product, "name": name, "histories": [test_cases.view(one) for one in found]}
    return models.TestHistory.model_validate(shown)


@router.get("/steps/{step}", tags=["logs"])
def step(step: Id, record: Record) -> steps.Step:
    """A step, and where it belongs."""
    return steps.find(record, step)


@router.get(
    "/steps/{step}/log",
    tags=["logs"],
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def log(step: Id, request: Request, site: OfSite, record: Record) -> Response:
    """All that a step printed, as it printed it."""
    return logs.download(step, request, site, record)


def _line(found: record_of.Product) -> dict[str, Any]:
    # Some keep a password or a token in an address.
    return {name: getattr(found, name) for name in _LINE} | {"url": _ACCOUNT.sub("//", found.url)}

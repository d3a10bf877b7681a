"""The published repository, the queue, hosts and images."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from cleanroom_db import dependencies, generations, listings, overview, published, services, trends
from cleanroom_db.listings import Package
from cleanroom_db.overview import Running
from cleanroom_db.published import Channel
from cleanroom_db.services import Host, Service
from cleanroom_db.trends import UsedImage, UsedTarget
from cleanroom_master.web.api import models
from cleanroom_master.web.api.conditional import Conditional
from cleanroom_master.web.api.facts import Id, Text
from cleanroom_master.web.api.paging import LARGEST, LINK, After, Before, Limit, part
from cleanroom_master.web.site import Everything, Record

router = APIRouter(route_class=Conditional)

# What is told of two generations' difference, and of the queue.
_MOST = 10_000
_MOVED = tuple(models.MovedPackage.model_fields)
_RELEASED = tuple(models.MovedRelease.model_fields)


@router.get("/channels", tags=["repository"])
def channels(record: Record) -> list[Channel]:
    """The channels that have something."""
    return published.channels(record)


@router.get("/generations", tags=["repository"], responses=LINK)
def listed_generations(
    record: Record, request: Request, response: Response, before: Before = None
) -> list[models.Generation]:
    """The states of the repository that consumers saw, newest first."""
    found = [models.Generation(**vars(one)) for one in published.generations(record, before)]
    return part(request, response, found, published.GENERATIONS, "before", "number")


@router.get("/generations/{generation}", tags=["repository"])
def generation(generation: Id, record: Record) -> models.Generation:
    """One state of the repository."""
    found = generations.get(record, generation)
    assert found.switched_at is not None
    return models.Generation(
        number=found.number,
        switched_at=found.switched_at,
        actor=found.actor,
        reason=found.reason,
        added=len(found.added),
        removed=len(found.removed),
    )


@router.get("/generations/{generation}/packages", tags=["repository"], responses=LINK)
def packages(
    generation: Id,
    record: Record,
    request: Request,
    response: Response,
    channel: Text = None,
    name: Text = None,
    after: After = 0,
    limit: Limit = 200,
) -> list[Package]:
    """The packages of a generation."""
    generations.get(record, generation)
    found = listings.packages(record, generation, channel=channel, name=name, after=after, limit=limit + 1)
    return part(request, response, found, limit, "after", "id")


@router.get("/generations/{generation}/difference", tags=["repository"])
def difference(
    generation: Id, record: Record, since: Annotated[int, Query(ge=1, le=LARGEST, description="an earlier one")]
) -> models.Difference:
    """What a generation has that another has not, and the other way round."""
    for number in (since, generation):
        generations.get(record, number)
    found = generations.difference(record, since, generation)
    return models.Difference(
        first=since,
        second=generation,
        added=[_moved(one) for one in found.added[:_MOST]],
        removed=[_moved(one) for one in found.removed[:_MOST]],
        releases_added=[_released(one) for one in found.releases_added[:_MOST]],
        releases_removed=[_released(one) for one in found.releases_removed[:_MOST]],
    )


@router.get("/queue", tags=["queue"])
def queue(record: Record, limit: Limit = 200) -> models.Queue:
    """All that is not at its end, in the order in which it is worked on, and what it waits for."""
    found, graph = dependencies.queue(record)
    return models.Queue(count=len(found), queue=found[:limit], cycles=[list(one) for one in graph.cycles])


@router.get("/running", tags=["queue"])
def running(record: Record) -> list[Running]:
    """What is worked on now, what has run longest first."""
    return overview.running(record)


@router.get("/hosts", tags=["hosts"])
def hosts(everything: Everything) -> list[Host]:
    """The machines that run guests."""
    return services.hosts(everything)


@router.get("/services", tags=["hosts"])
def listed_services(everything: Everything) -> list[Service]:
    """The processes of Cleanroom that say how they are."""
    return services.list_all(everything)


@router.get("/images", tags=["hosts"])
def images(everything: Everything) -> list[UsedImage]:
    """The images in which phases ran lately."""
    return trends.images(everything)


@router.get("/targets", tags=["hosts"])
def targets(everything: Everything) -> list[UsedTarget]:
    """The targets of the latest builds, and how those went."""
    return trends.targets(everything)


def _moved(one: generations.ChannelPackage) -> models.MovedPackage:
    return models.MovedPackage(**{name: getattr(one, name) for name in _MOVED})


def _released(one: generations.ChannelRelease) -> models.MovedRelease:
    return models.MovedRelease(**{name: getattr(one, name) for name in _RELEASED})

"""The application: its pages, its files, its errors."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources

from anyio import to_thread
from fastapi import Depends, FastAPI
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from cleanroom_master.web import errors, refusals, visitors
from cleanroom_master.web.api import application as api
from cleanroom_master.web.headers import Headers
from cleanroom_master.web.live import News
from cleanroom_master.web.makers import Handed, Makers
from cleanroom_master.web.measures import Meter
from cleanroom_master.web.pages import (
    account,
    actions,
    changes,
    environments,
    feeds,
    hosts,
    images,
    logs,
    products,
    queue,
    release,
    releases,
    repository,
    signing_in,
    test_cases,
    trends,
)
from cleanroom_master.web.sharing import Shared
from cleanroom_master.web.site import THREADS, Site
from cleanroom_master.web.templating import PACKAGE, Pages
from cleanroom_master.web.webhooks.receiving import Receiver

ROUTERS = tuple(
    module.router
    for module in (
        *(releases, release, environments, images, logs, products, test_cases, queue, repository, hosts, trends),
        *(changes, feeds, signing_in, account, actions),
    )
)


def create(site: Site, receiver: Receiver | None = None, makers: Makers | None = None) -> FastAPI:
    """The web status of a site, to be run by an ASGI server. Without a receiver no webhooks are taken.

    `makers` are processes that make pages for it.
    """
    application = bare(site, receiver)
    news: News = application.state.news
    # The last one is the outermost.
    if makers is not None and makers.makers:
        application.state.makers = makers
        application.add_middleware(Handed, makers=makers, news=news)
    application.add_middleware(Shared, news=news)
    application.add_middleware(Headers)
    return application


def bare(site: Site, receiver: Receiver | None = None) -> FastAPI:
    """All pages, each made anew for each reader."""
    # Its own pages about itself would load scripts from elsewhere.
    application = FastAPI(
        title="Cleanroom", docs_url=None, redoc_url=None, openapi_url=None, lifespan=_life,
        dependencies=[Depends(visitors.identify)],
    )  # fmt: skip
    application.state.site = site
    application.state.news = News(site.database.url)
    application.state.meter = Meter(site.database)
    application.state.pages = Pages(site)
    application.state.makers = None
    for router in ROUTERS:
        application.include_router(router)
    application.router.routes.append(_interface(api.create(site, receiver)))
    application.mount("/static", StaticFiles(directory=str(resources.files(PACKAGE).joinpath("static"))))
    errors.register(application, application.state.pages)
    refusals.register(application, application.state.pages)
    return application


def _interface(application: FastAPI) -> Mount:
    """Where the interface for programs is: it answers all that begins so, addresses with line breaks included."""
    mount = Mount(api.ADDRESS, application)
    mount.path_regex = re.compile(mount.path_regex.pattern, re.DOTALL)
    return mount


@asynccontextmanager
async def _life(application: FastAPI) -> AsyncIterator[None]:
    to_thread.current_default_thread_limiter().total_tokens = THREADS
    makers: Makers | None = application.state.makers
    if makers is not None:
        await makers.begin()
    application.state.news.start()
    yield
    application.state.news.stop()
    if makers is not None:
        await makers.end()
    site: Site = application.state.site
    site.database.close()
    if site.access is not None:
        site.access.close()

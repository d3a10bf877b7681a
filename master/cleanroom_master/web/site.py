"""What the pages of one site work with, and the dependencies by which they get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from cleanroom_base.settings import Settings
from cleanroom_db import cluster
from cleanroom_db.connection import Database
from cleanroom_db.roles import Role
from cleanroom_master.files import FileStore
from cleanroom_master.logs import LogStore
from cleanroom_master.places import Places
from cleanroom_master.web import visitors
from cleanroom_master.web.visitors import Access

# Handlers run in so many threads, each with at most one connection: more readers wait for a thread. With 8, which share
# one interpreter, pages took a fifth longer at 20 readers.
THREADS = 4
# A reader is told that the database is away rather than kept waiting for it, in seconds.
_DATABASE_WAIT = 2.0


@dataclass(frozen=True)
class Site:
    """One site: its record, its files, its addresses, and how people get in (None: nobody signs in)."""

    database: Database
    logs: LogStore
    artifacts: FileStore
    web_url: str
    repository_url: str
    buildbot_url: str
    access: Access | None = None

    @classmethod
    def open(cls, settings: Settings) -> Site:
        """The site of some settings; nothing is connected yet."""
        url = cluster.database_url(settings, Role.WEB)
        places = Places(settings)
        return cls(
            Database(url, wait=_DATABASE_WAIT, connections=THREADS),
            LogStore(places.logs),
            FileStore(places.artifacts),
            settings.web_url,
            settings.repository_url,
            settings.buildbot_url,
            Access.open(settings),
        )


async def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


async def _everything(request: Request) -> Database:
    database: Database = request.app.state.site.database
    return database


async def _part(request: Request) -> Database | None:
    site: Site = request.app.state.site
    return None if site.access is None else site.access.part_of(visitors.of(request))


async def _record(request: Request) -> Database:
    return await _part(request) or await _everything(request)


# What a handler asks for: `def page(record: Record)`. The role can only read; handlers are functions without `async`,
# which FastAPI runs in threads. `Record` is the record as far as who asks may read it, `Part` the same for who may not
# read all of it, else None; `Everything` is for what belongs to no product: hosts, images, how long things take.
OfSite = Annotated[Site, Depends(_site)]
Record = Annotated[Database, Depends(_record)]
Part = Annotated[Database | None, Depends(_part)]
Everything = Annotated[Database, Depends(_everything)]

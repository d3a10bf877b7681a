"""The web status over HTTP, until the process is told to end."""

from __future__ import annotations

import errno
import os
import socket

import anyio
import uvicorn

from cleanroom_base import health
from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import Settings
from cleanroom_master.web.api.application import ADDRESS
from cleanroom_master.web.application import bare, create
from cleanroom_master.web.makers import Makers
from cleanroom_master.web.site import Site
from cleanroom_master.web.templating import NAVIGATION
from cleanroom_master.web.webhooks.receiving import Receiver

# What is still being answered may need so long, in seconds; open live pages come back by themselves.
_GRACE = 2
_BACKLOG = 2048
_TURN = 5
# More would wait for the database.
_MOST_MAKERS = 4
# What processes that make pages have answered once before anybody asks. Where reading is closed the last one counts.
_FIRST = (*(address for _, address in NAVIGATION), f"{ADDRESS}/releases", f"{ADDRESS}/openapi.json", "/sign-in")


def serve(settings: Settings) -> None:
    """Serve the site's web status at `web.bind`, once all is there that readers would wait for.

    Raises InfrastructureError when the port cannot be had, and when one of its processes has ended by itself.
    """
    place = _bound(settings)
    site = Site.open(settings)
    inner = bare(site)
    inner.state.pages.load()
    # Loads what an event loop needs, without a thread.
    anyio.run(anyio.sleep, 0)
    makers = Makers.fork(_makers(settings), inner, inner.state.news, place, first=_FIRST)
    # Not before: what begins has threads, beside which no process is forked.
    pulse = health.Server.begin(settings, "web")

    async def turned() -> None:
        pulse.turn("readers", within=_TURN)

    configuration = uvicorn.Config(
        create(site, Receiver.open(settings), makers),
        access_log=False,
        # What it logs goes the way of all records.
        log_config=None,
        backlog=_BACKLOG,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
        callback_notify=turned,
        timeout_notify=_TURN,
    )
    server = uvicorn.Server(configuration)
    lost = []

    def end() -> None:
        lost.append("one")
        server.should_exit = True

    makers.lost = end
    try:
        # It listens when the application has begun.
        server.run(sockets=[place])
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise _taken(settings, error) from error
    if lost:
        # All are started anew together: to fork now, beside threads, would not be safe.
        raise InfrastructureError("a process that made pages has ended", hint="the service starts anew by itself")


def _makers(settings: Settings) -> int:
    """How many processes make pages."""
    if settings.optional("web.makers") is not None:
        return settings.whole("web.makers")
    return min(len(os.sched_getaffinity(0)), _MOST_MAKERS)


def _bound(settings: Settings) -> socket.socket:
    """The socket of the site's address, at which nobody listens yet."""
    address, port = settings.text("web.bind"), settings.whole("web.port")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    place = socket.socket(family, socket.SOCK_STREAM)
    try:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            place.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        place.bind((address, port))
    except OSError as error:
        place.close()
        raise _taken(settings, error) from error
    return place


def _taken(settings: Settings, error: OSError) -> InfrastructureError:
    address, port = settings.text("web.bind"), settings.whole("web.port")
    return InfrastructureError(
        f"the web status cannot be served at {address}, port {port}: {error.strerror}",
        hint="set web.port or web.bind (CLEANROOM_WEB_PORT, CLEANROOM_WEB_BIND), or end what uses the port",
    )

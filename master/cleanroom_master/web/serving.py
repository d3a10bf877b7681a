"""The web status over HTTP, until the process is told to end."""

from __future__ import annotations

import os
import socket

import uvicorn

from cleanroom_base import health
from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import Settings
from cleanroom_master.web.application import bare, create
from cleanroom_master.web.makers import Makers
from cleanroom_master.web.site import Site
from cleanroom_master.web.webhooks.receiving import Receiver

# What is still being answered may need so long, in seconds; open live pages come back by themselves.
_GRACE = 2
_BACKLOG = 2048
_TURN = 5
# More would wait for the database.
_MOST_MAKERS = 4


def serve(settings: Settings) -> None:
    """Serve the site's web status at `web.bind`.

    Raises InfrastructureError when the port cannot be had, and when one of its processes has ended by itself.
    """
    listening = _listen(settings.text("web.bind"), settings.whole("web.port"))
    site = Site.open(settings)
    inner = bare(site)
    inner.state.pages.load()
    makers = Makers.fork(_makers(settings), inner, inner.state.news, listening)
    # Not before: what begins has threads, beside which no process is forked.
    pulse = health.Server.begin(settings, "web")

    async def turned() -> None:
        pulse.turn("readers", within=_TURN)

    configuration = uvicorn.Config(
        create(site, Receiver.open(settings), makers),
        access_log=False,
        # What it logs goes the way of all records.
        log_config=None,
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
    server.run(sockets=[listening])
    if lost:
        # All are started anew together: to fork now, beside threads, would not be safe.
        raise InfrastructureError("a process that made pages has ended", hint="the service starts anew by itself")


def _makers(settings: Settings) -> int:
    """How many processes make pages."""
    if settings.optional("web.makers") is not None:
        return settings.whole("web.makers")
    return min(len(os.sched_getaffinity(0)), _MOST_MAKERS)


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InfrastructureError(
            f"the web status cannot be served at {address}, port {port}: {error.strerror}",
            hint="set web.port or web.bind (CLEANROOM_WEB_PORT, CLEANROOM_WEB_BIND), or end what uses the port",
        ) from error

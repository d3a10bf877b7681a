"""This host's Buildbot worker: it runs phases when the master says so, and ends guests that nobody claims."""

from __future__ import annotations

import socket
from typing import Any

from buildbot_worker.bot import Worker
from twisted.application.internet import TimerService
from twisted.application.service import MultiService
from twisted.internet.threads import deferToThread
from twisted.python import log

from cleanroom_base import run
from cleanroom_base.settings import Settings

_REAP_EVERY = 15.0
_REAP_TIMEOUT = 120.0
# Events are to be seen as they happen, and one event is one line, however long.
_SEND_AFTER = 0.2
_LONGEST_LINE = 1 << 20


def worker(settings: Settings) -> MultiService:
    """The worker and its reaper as one service."""
    directory = settings.state / "worker"
    (directory / "info").mkdir(parents=True, exist_ok=True)
    buildbot_worker = Worker(
        settings.text("master.host"),
        settings.whole("master.worker_port"),
        socket.gethostname(),
        settings.worker_password.read_text().strip(),
        str(directory),
        keepalive=60,
        maxdelay=10,
    )
    buildbot_worker.bot.buffer_timeout = _SEND_AFTER
    buildbot_worker.bot.max_line_length = _LONGEST_LINE
    service = MultiService()
    buildbot_worker.setServiceParent(service)
    TimerService(_REAP_EVERY, _reap).setServiceParent(service)
    return service


def _reap() -> Any:
    done = deferToThread(run.run, ["cleanroom-worker", "reap"], timeout=_REAP_TIMEOUT)
    return done.addErrback(lambda failure: log.msg(f"guests could not be reaped: {failure.getErrorMessage()}"))

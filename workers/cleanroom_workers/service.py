"""This host's Buildbot worker: it runs phases when the master says so."""

from __future__ import annotations

import os
import socket

from buildbot_worker.bot import Worker
from twisted.internet.task import LoopingCall
from twisted.python import log

from cleanroom_base import health
from cleanroom_base.settings import Settings
from cleanroom_recipes import protocol
from cleanroom_workers import phase_server
from cleanroom_workers.description import described

# Events are to be seen as they happen, and one event is one line, however long.
_SEND_AFTER = 0.2
_LONGEST_LINE = 1 << 20
_TURN = 5.0


def worker(settings: Settings) -> Worker:
    """The worker as a service."""
    directory = settings.state / "worker"
    (directory / "info").mkdir(parents=True, exist_ok=True)
    # Buildbot tells the master what is in there each time that the worker comes.
    (directory / "info" / protocol.WORKER_FILE).write_text(str(protocol.VERSION))
    # What is in the file of that name, the master keeps of its workers; `cleanroom doctor` compares versions.
    (directory / "info" / "host").write_text(described(), encoding="utf-8")
    os.environ[phase_server.VARIABLE] = str(settings.runtime / phase_server.SOCKET)
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
    pulse = health.Server.begin(settings, "worker")
    LoopingCall(lambda: pulse.turn("the master", within=_TURN)).start(_TURN).addErrback(log.err)
    return buildbot_worker

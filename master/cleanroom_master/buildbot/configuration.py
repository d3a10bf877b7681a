"""Buildbot's configuration as a pure function of our settings and products."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from buildbot.config import BuilderConfig
from buildbot.configurators.janitor import JanitorConfigurator
from buildbot.process.factory import BuildFactory
from buildbot.worker import Worker
from buildbot.www.authz import Authz
from buildbot.www.authz.endpointmatchers import AnyControlEndpointMatcher
from twisted.internet import defer
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.python import log

from cleanroom_base.settings import Settings
from cleanroom_master.buildbot.scheduler import AttemptScheduler
from cleanroom_master.buildbot.steps import AttemptBuild, LeaseAttempt
from cleanroom_master.dispatch import Dispatch, builder_name
from cleanroom_recipes import protocol
from cleanroom_workers.report import NAME

# Buildbot keeps its copy of logs in the database. Ours, on disk, is complete; Buildbot's is for watching.
_BUILDBOT_LOG = 1 << 20
# In days.
_FOR_EVER = 36_500
# A host is asked how it is so often, in seconds.
_ASK_EVERY = 5.0


@dataclass(frozen=True)
class Inputs:
    """All that the configuration is made from.

    `builds` are pairs of a product's and a target's name, `probed` those with the number of lanes on which they are
    probed; `workers` maps each worker's name to its password.
    """

    settings: Settings
    database_url: str
    workers: Mapping[str, str]
    builds: tuple[tuple[str, str], ...]
    dispatch: Dispatch
    probed: tuple[tuple[str, str, int], ...] = ()

    @property
    def builders(self) -> list[tuple[str, str, int]]:
        """Product, target and lane of each builder; lane 0 is that of releases."""
        lanes = [(product, target, lane) for product, target, most in self.probed for lane in range(1, most + 1)]
        return [*((product, target, 0) for product, target in self.builds), *lanes]


class HostWorker(Worker):
    """A host's worker. When it is tried again is decided by our rows, so Buildbot's own pause is off; so is whether it
    takes work at all. What it says of itself is asked for while it is connected.

    One that speaks a version which the master does not understand gets nothing to do, and that is written down.
    """

    dispatch: Dispatch
    _asking: LoopingCall | None = None
    _has_builders: bool = False

    @property
    def protocol(self) -> int:
        """The version that the worker speaks; those that say none speak the first.

        Buildbot's own `info` keeps what an earlier connection said and this one does not.
        """
        said = {} if self.conn is None else self.conn.info
        try:
            return int(said.get(protocol.WORKER_FILE, 1))
        except ValueError:
            return 0

    @defer.inlineCallbacks
    def attached(self, conn: Any) -> Any:
        """The worker came. Where Buildbot's own database is away just then, it is sent away, and comes again."""
        self._has_builders = False
        yield super().attached(conn)
        if self.conn is not conn:
            # It was lost again meanwhile.
            return
        if not self._has_builders:
            # Buildbot logs its error, and would keep a worker to which it gives nothing.
            conn.loseConnection()
            return
        if (problem := protocol.refusal(self.protocol)) is not None:
            log.msg(f"{self.name} gets nothing to do: {problem}")
        noted = deferToThread(self.dispatch.worker_attached, self.name, self.protocol)
        noted.addErrback(log.err, "which version a worker speaks could not be written down")
        self._asking = LoopingCall(self._ask)
        self._asking.start(_ASK_EVERY).addErrback(log.err)

    def updateWorker(self) -> Any:  # noqa: N802 - Buildbot's name
        """The worker is given its builders, after Buildbot has written down that it came."""
        self._has_builders = True
        return super().updateWorker()

    def putInQuarantine(self) -> None:  # noqa: N802 - Buildbot's name
        """Do nothing."""

    def canStartBuild(self) -> bool:  # noqa: N802 - Buildbot's name
        """Whether it takes work now."""
        if self.name in self.dispatch.closed_hosts or not protocol.understood(self.protocol):
            return False
        return bool(super().canStartBuild())

    @defer.inlineCallbacks
    def detached(self) -> Any:
        """The host is not connected any more."""
        if self._asking is not None and self._asking.running:
            self._asking.stop()
        try:
            yield super().detached()
        except Exception:
            # Buildbot writes that down first, and would otherwise take the worker for busy when it comes again.
            log.err(None, f"that {self.name} is lost could not be written down")
            self.botmaster.workerLost(self)
            self.startMissingTimer()

    @defer.inlineCallbacks
    def _ask(self) -> Any:
        try:
            info = yield self.conn.remoteGetWorkerInfo()
            yield deferToThread(self.dispatch.host_seen, self.name, str(info.get(NAME, "")), int(info["numcpus"]))
        except Exception:
            # It is asked again soon.
            log.err(None, f"host {self.name} could not be asked how it is")


def configure(inputs: Inputs) -> dict[str, Any]:
    """Buildbot's configuration dictionary."""
    settings = inputs.settings
    bind = settings.text("master.bind")
    names = [builder_name(*one) for one in inputs.builders]
    return {
        "title": "Cleanroom",
        "titleURL": settings.repository_url,
        "buildbotURL": f"http://{bind}:{settings.whole('master.port')}/",
        "buildbotNetUsageData": None,
        "db": {"db_url": inputs.database_url},
        "protocols": {"pb": {"port": f"tcp:{settings.whole('master.worker_port')}:interface={bind}"}},
        "workers": [_worker(name, password, inputs) for name, password in inputs.workers.items()],
        "builders": [_builder(*one, inputs) for one in inputs.builders],
        "schedulers": [AttemptScheduler(name="attempts", builderNames=names, dispatch=inputs.dispatch)],
        # Housekeeping removes whole builds; this is Buildbot's own, and the builder without which a site that has no
        # product yet would be none to it.
        "configurators": [JanitorConfigurator(logHorizon=_horizon(settings), hour=3)],
        "logMaxSize": _BUILDBOT_LOG,
        "logMaxTailSize": _BUILDBOT_LOG // 8,
        "www": {
            "port": f"tcp:{settings.whole('master.port')}:interface={bind}",
            "plugins": {"waterfall_view": {}, "console_view": {}, "grid_view": {}},
            # Buildbot's pages are for looking: what happens to a release is decided by our own commands.
            "authz": Authz(allowRules=[AnyControlEndpointMatcher(role="nobody")], roleMatchers=[]),
            "change_hook_dialects": {},
        },
    }


def _worker(name: str, password: str, inputs: Inputs) -> HostWorker:
    worker = HostWorker(name, password, max_builds=inputs.settings.whole("worker.parallel"), keepalive_interval=60)
    worker.dispatch = inputs.dispatch
    return worker


def _horizon(settings: Settings) -> timedelta:
    return timedelta(days=settings.number("retention.buildbot_days") or _FOR_EVER)


def _builder(product: str, target: str, lane: int, inputs: Inputs) -> BuilderConfig:
    # A directory name on the worker; two names never become one, because no part holds a double underscore.
    directory = re.sub(r"[^a-z0-9.+-]", "_", f"{product}__{target}{f'__{lane}' if lane else ''}")
    factory = BuildFactory([LeaseAttempt(inputs.dispatch)])
    factory.buildClass = AttemptBuild
    return BuilderConfig(
        name=builder_name(product, target, lane),
        workernames=list(inputs.workers),
        factory=factory,
        workerbuilddir=directory,
        builddir=directory,
        tags=[product, target],
    )

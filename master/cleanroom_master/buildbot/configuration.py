"""Buildbot's configuration as a pure function of our settings and products."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from buildbot.config import BuilderConfig
from buildbot.process.factory import BuildFactory
from buildbot.worker import Worker
from buildbot.www.authz import Authz
from buildbot.www.authz.endpointmatchers import AnyControlEndpointMatcher

from cleanroom_base.settings import Settings
from cleanroom_master.buildbot.scheduler import AttemptScheduler
from cleanroom_master.buildbot.steps import AttemptBuild, LeaseAttempt
from cleanroom_master.dispatch import Dispatch, builder_name

# Buildbot keeps its copy of logs in the database. Ours, on disk, is complete; Buildbot's is for watching.
_BUILDBOT_LOG = 1 << 20


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
    """A host's worker; when it is tried again is decided by our rows, so Buildbot's own pause is off."""

    def putInQuarantine(self) -> None:  # noqa: N802 - Buildbot's name
        """Do nothing."""


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
        "workers": [
            HostWorker(name, password, max_builds=settings.whole("worker.parallel"), keepalive_interval=60)
            for name, password in inputs.workers.items()
        ],
        "builders": [_builder(*one, inputs) for one in inputs.builders],
        "schedulers": [AttemptScheduler(name="attempts", builderNames=names, dispatch=inputs.dispatch)],
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

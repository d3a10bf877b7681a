"""A host's processes: the Buildbot worker, the pool of ready guests, and what starts phases.

They share mounts, sockets and libvirt, so they run in one place; where that is a machine of its own or a container,
`cleanroom-worker serve` keeps all three running.
"""

from __future__ import annotations

import signal
import sys
import time

from cleanroom_base.errors import CleanroomError
from cleanroom_base.settings import Settings
from cleanroom_base.tending import Tended, end_all
from cleanroom_workers.host import Host
from cleanroom_workers.host_services import services

_TICK = 0.2


def serve(settings: Settings) -> None:
    """Keep them running until SIGTERM or SIGINT; then end them, all guests, and what guests needed."""
    ended: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: ended.append(received))
    settings.runtime.mkdir(mode=0o711, parents=True, exist_ok=True)
    tended = [Tended(service) for service in services()]
    try:
        while not ended:
            for one in tended:
                one.tend(None)
            time.sleep(_TICK)
    finally:
        end_all(tended)
        try:
            Host(settings).stop()
        except CleanroomError as error:
            sys.stderr.write(f"while ending: {error}\n")

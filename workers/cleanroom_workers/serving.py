"""A host's processes: the Buildbot worker, the pool of ready guests, and what starts phases.

They share mounts, sockets and libvirt, so they run in one place; where that is a machine of its own or a container,
`cleanroom-worker serve` keeps all three running.
"""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
import time
from pathlib import Path

from cleanroom_base.errors import CleanroomError
from cleanroom_base.settings import Settings
from cleanroom_base.tending import Service, Tended, end_all
from cleanroom_workers.host import Host

_TICK = 0.2
# A worker host holds no database, no signing key and no credentials: it is not even told where they are.
_NOT_TOLD = ("CLEANROOM_DATABASE_", "CLEANROOM_DELIVERY_")


def services() -> tuple[Service, ...]:
    """The processes of a host, in the order of their start."""
    scripts = Path(sysconfig.get_path("scripts"))
    twistd, on_worker = str(scripts / "twistd"), str(scripts / "cleanroom-worker")
    environment = {name: "" for name in os.environ if name.startswith(_NOT_TOLD)}
    environment["PATH"] = f"{scripts}:{os.environ.get('PATH', '')}"
    return (
        Service(
            "worker", (twistd, "--nodaemon", "--pidfile=", "--logfile=-", f"--python={_description()}"), environment
        ),
        Service("guests", (on_worker, "pool"), environment),
        Service("phases", (on_worker, "phases"), environment),
    )


def _description() -> Path:
    """The worker's `buildbot.tac`: beside this package in a checkout, inside it once installed."""
    inside = Path(__file__).parent / "basedir"
    return (inside if inside.is_dir() else inside.parents[1] / "basedir") / "buildbot.tac"


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

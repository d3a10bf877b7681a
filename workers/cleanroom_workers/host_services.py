"""How a host's processes are started; without anything that they need themselves."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from cleanroom_base.tending import Service

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

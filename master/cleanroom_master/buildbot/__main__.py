"""Runs Buildbot's master in this process: `python -m cleanroom_master.buildbot`."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

from cleanroom_base import run
from cleanroom_base.errors import CleanroomError
from cleanroom_base.settings import load
from cleanroom_master.places import Places, shipped

_UPGRADE_TIMEOUT = 600.0


def main() -> None:
    """Bring Buildbot's own tables up to date, then become its process."""
    settings = load()
    places = Places(settings)
    scripts = Path(sysconfig.get_path("scripts"))
    places.buildbot.mkdir(parents=True, exist_ok=True)
    import cleanroom_master

    shutil.copyfile(shipped(cleanroom_master, "basedir") / "buildbot.tac", places.buildbot / "buildbot.tac")
    try:
        run.run([scripts / "buildbot", "upgrade-master", "--quiet", places.buildbot], timeout=_UPGRADE_TIMEOUT)
        run.replace(
            [
                scripts / "twistd",
                "--nodaemon",
                "--pidfile=",
                "--logfile=-",
                f"--python={places.buildbot / 'buildbot.tac'}",
            ]
        )
    except CleanroomError as error:
        sys.stderr.write(f"cleanroom master: {error}\n")
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()

"""Runs Buildbot's master in this process: `python -m cleanroom_master.buildbot`."""

from __future__ import annotations

import logging
import shutil
import sys
import sysconfig
from pathlib import Path

from cleanroom_base import log_records, run
from cleanroom_base.errors import CleanroomError, causes
from cleanroom_base.settings import load
from cleanroom_master.places import Places, shipped

_UPGRADE_TIMEOUT = 600.0


def main() -> None:
    """Bring Buildbot's own tables up to date, then become its process."""
    log_records.begin("master")
    try:
        settings = load()
    except CleanroomError as error:
        sys.exit(_failed(error))
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
                "--logger=cleanroom_master.buildbot.records.observer",
                f"--python={places.buildbot / 'buildbot.tac'}",
            ]
        )
    except CleanroomError as error:
        sys.exit(_failed(error))


def _failed(error: CleanroomError) -> int:
    logging.critical("%s", "\n".join(causes(error)))
    return error.exit_status


if __name__ == "__main__":
    main()

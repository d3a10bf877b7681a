"""Reads what Buildbot's configuration is made from: the settings, the products in the record, the workers."""

from __future__ import annotations

import socket
from pathlib import Path

from sqlalchemy.engine import make_url

from cleanroom_base.settings import Settings
from cleanroom_db import bisections, releases
from cleanroom_db.cluster import database_url, open_database
from cleanroom_db.listen import Listener
from cleanroom_db.roles import Role
from cleanroom_master.buildbot.configuration import Inputs
from cleanroom_master.dispatch import CHANNELS, Dispatch

# A reconfiguration reads the configuration again in the same process; its connections stay.
_DISPATCHES: dict[Path, Dispatch] = {}


def read(settings: Settings) -> Inputs:
    """All inputs as they are now; the database connection is made once a process."""
    dispatch = _opened(settings)
    return Inputs(
        settings=settings,
        database_url=buildbot_url(database_url(settings, Role.MASTER)),
        workers=dict.fromkeys(
            settings.words("master.workers") or (socket.gethostname(),), settings.worker_password.read_text().strip()
        ),
        builds=tuple(releases.builders(dispatch.database)),
        dispatch=dispatch,
        probed=tuple(bisections.lanes(dispatch.database)),
    )


def buildbot_url(url: str) -> str:
    """Our database's address as Buildbot wants it: in SQLAlchemy's form, and with Buildbot's own schema."""
    made = make_url(url).set(drivername="postgresql+psycopg2")
    options = f"{made.query.get('options', '')} -csearch_path=buildbot".strip()
    return made.update_query_dict({"options": options}).render_as_string(hide_password=False)


def _opened(settings: Settings) -> Dispatch:
    if settings.state not in _DISPATCHES:
        database = open_database(settings, Role.MASTER)
        _DISPATCHES[settings.state] = Dispatch(settings, database, Listener(database.url, CHANNELS))
    return _DISPATCHES[settings.state]

"""How master and workers understand each other while one of them is newer: the number of what they say, in one place.

Whoever changes a request so that an older worker would not read it, or an event so that an older master would not,
raises VERSION, and says here what is new. A master
leaves that out for a worker that is one version behind, and gives one that is further away nothing to do; a worker
refuses the request of such a master. So hosts can be brought up to date one after the other, after the master.

    1   what workers said before there was a number
    2   the request says the master's number, and by what log records are found
    3   the end of a phase says whether its guest went off
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cleanroom_base.errors import InputError

VERSION = 3
# The file in a Buildbot worker's directory `info`, and the name under which the master gets it.
WORKER_FILE = "cleanroom_protocol"
# The keys of a request that came with a version.
_ADDED: Mapping[int, tuple[str, ...]] = {2: ("protocol", "correlation")}


def understood(version: int) -> bool:
    """Whether a worker of that version can be given work: it is of this one, or one behind."""
    return version in (VERSION, VERSION - 1)


def refusal(version: int) -> str | None:
    """Why a worker is given nothing to do, and what to do about it; None: it can be given work."""
    if understood(version):
        return None
    older, newer = ("its host", "the master") if version < VERSION else ("the master", "its host")
    return (
        f"the worker speaks version {version}, the master {VERSION}: {newer} was brought up to date,"
        f" now bring {older} up to date and start it again"
    )


def for_worker(request: Mapping[str, Any], version: int) -> dict[str, Any]:
    """A request, as JSON knows it, without what a worker of an older version does not read."""
    new = {key for since, keys in _ADDED.items() if since > version for key in keys}
    return {key: value for key, value in request.items() if key not in new}


def check_master(version: object) -> None:
    """Raise InputError for the number in a request that this worker is not made for."""
    if not isinstance(version, int) or isinstance(version, bool) or abs(version - VERSION) > 1:
        raise InputError(
            f"the request is of version {version!r}, this worker reads {VERSION} and what is one away from it",
            hint="bring the older of master and worker up to date",
        )

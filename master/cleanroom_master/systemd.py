"""What systemd knows of our units, where it runs them, and what it wants to be told (see `master/systemd/`)."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cleanroom_base.errors import CleanroomError
from cleanroom_base.run import run
from cleanroom_base.settings import Settings

TARGET = "cleanroom.target"
_PREFIX, _SUFFIX = "cleanroom-", ".service"
_STATE = Path("/var/lib/cleanroom")  # that of the units
_TIMEOUT = 10.0
_PROPERTIES = ("Id", "ActiveState", "SubState", "StateChangeTimestampMonotonic", "MainPID", "NRestarts")
_STATES = {"active": "running", "reloading": "running", "activating": "starting", "failed": "failing"}


def ready() -> None:
    """Tell whoever started this process that it does its work. Source: sd_notify(3)."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as about:
            about.sendto(b"READY=1", f"\0{address[1:]}" if address.startswith("@") else address)


def active(settings: Settings) -> bool:
    """Whether the target is active, or becomes so, and it is this installation that its units run."""
    if settings.state != _STATE:
        return False
    try:
        # Where another init runs, it says so and nothing is active.
        shown = run(["systemctl", "is-active", TARGET], timeout=_TIMEOUT, check=False)
    except CleanroomError:
        return False
    return shown.text.strip() in ("active", "activating", "reloading")


def service_states(settings: Settings) -> list[dict[str, object]]:
    """The states of the units that the target has started, in the words of the supervisor; none where it did not."""
    if not active(settings):
        return []
    wanted = run(["systemctl", "show", "--property=Wants", "--value", TARGET], timeout=_TIMEOUT).text.split()
    units = sorted(unit for unit in wanted if unit.startswith(_PREFIX) and unit.endswith(_SUFFIX))
    shown = run(["systemctl", "show", f"--property={','.join(_PROPERTIES)}", *units], timeout=_TIMEOUT).text
    return [_state(dict(line.partition("=")[::2] for line in unit.splitlines())) for unit in shown.split("\n\n")]


def _state(unit: dict[str, str]) -> dict[str, object]:
    changed = timedelta(microseconds=int(unit["StateChangeTimestampMonotonic"]))
    with Path("/proc/uptime").open() as file:
        up = timedelta(seconds=float(file.read().split()[0]))
    since = datetime.now(UTC) - (up - changed)
    state = _STATES.get(unit["ActiveState"], "starting")
    if unit["SubState"] == "auto-restart" and int(unit.get("NRestarts", "0")) >= 3:
        state = "failing"
    return {
        "name": unit["Id"].removeprefix(_PREFIX).removesuffix(_SUFFIX),
        "state": state,
        "since": since.replace(microsecond=0).isoformat().replace("+00:00", "Z"),
        "process": int(unit.get("MainPID", "0")) or None,
        "restarts": int(unit.get("NRestarts", "0")),
    }

"""What Buildbot's master logs, as records like those of all other processes."""

from __future__ import annotations

from typing import Any

from cleanroom_workers import twisted_records


def observer() -> Any:
    """For `twistd --logger`."""
    return twisted_records.observer("master")

"""What Twisted's programs log, as records like those of all other processes."""

from __future__ import annotations

from twisted.logger import STDLibLogObserver

from cleanroom_base import log_records


def observer(service: str) -> STDLibLogObserver:
    """Begin to log as a service; gives what Twisted is to tell of its own events."""
    log_records.begin(service)
    return STDLibLogObserver()


def worker() -> STDLibLogObserver:
    """For `twistd --logger` of the Buildbot worker."""
    return observer("worker")

"""How far a generation is written: whoever checks a part of it waits for that part, and not for the whole.

The clients' programs take longest, and each needs a part only. So they are at work while the rest is written.
"""

from __future__ import annotations

import threading

from cleanroom_base.errors import TimedOut

# The parts, apart from those that bear the name of their directory (`apt/dists/<channel>`, `yum/<image>/<channel>`).
PACKAGES = "packages"
EVERYTHING = "everything"
_INDEXES = "indexes of "
# Whoever writes has time limits of its own; this is for one that is stuck without any.
_TIMEOUT = 7200.0


def indexes(channel: str) -> str:
    """The indexes of an apt channel."""
    return _INDEXES + channel


class Progress:
    """The parts that are written; safe to share between threads."""

    def __init__(self) -> None:
        self._written: set[str] = set()
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    @classmethod
    def complete(cls) -> Progress:
        """That of a generation which is written."""
        progress = cls()
        progress.written(EVERYTHING)
        return progress

    def written(self, part: str) -> None:
        """A part is there. That EVERYTHING is says so of each."""
        with self._changed:
            self._written.add(part)
            self._changed.notify_all()

    def failed(self, error: BaseException) -> None:
        """There will be nothing more: whoever waits gets this error."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def wait(self, part: str) -> None:
        """Wait until a part is written. Raises what kept it from being written, and TimedOut."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._error is not None or not self._written.isdisjoint((part, EVERYTHING)), _TIMEOUT
            )
            if self._error is not None:
                raise self._error
            if self._written.isdisjoint((part, EVERYTHING)):
                raise TimedOut(f"{part} of a generation was not written in {_TIMEOUT:.0f} s")

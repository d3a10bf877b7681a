"""When something was last done that is to be done now and then: a file's time, so that no restart forgets it."""

from __future__ import annotations

import time
from pathlib import Path


class Occasion:
    """Something that is to be done every so many hours (0: never), the first time after as long."""

    def __init__(self, hours: float, file: Path) -> None:
        self._hours = hours
        self._file = file

    def due(self) -> bool:
        """Whether it is time.

        That is noted before it is begun with, so trouble with it comes once in its time and not every second.
        """
        if not self._hours:
            return False
        now = time.time()
        try:
            passed = now - self._file.stat().st_mtime
        except FileNotFoundError:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            passed = 0.0
        # A clock that was set back is no reason to wait for years.
        due = passed >= self._hours * 3600 or passed < -3600
        if due or passed == 0.0:
            self._file.touch()
        return due

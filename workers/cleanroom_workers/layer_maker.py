"""Has layers made beside the pool's own work: by a process of their own, one at a time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from cleanroom_base.run import Process, kill_group, start
from cleanroom_workers.pool import Kind

# One that could not be made is not tried again for so long, in seconds; each time it is twice as long. What a product
# declares may be nowhere to be had.
_PAUSE = 600.0


class LayerMaker:
    """Starts `cleanroom-worker layer KEY` for what is missing, and says how it went."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._making: tuple[Kind, Process] | None = None
        # When to try again, and how long the pause was.
        self._failed: dict[str, tuple[float, float]] = {}

    def tend(self, missing: Iterable[Kind]) -> Iterator[str]:
        """See to it that what is missing is being made."""
        if self._making is not None:
            kind, process = self._making
            status = process.poll()
            if status is None:
                return
            self._making = None
            _, before = self._failed.pop(kind.key, (0.0, _PAUSE / 2))
            if status != 0:
                self._failed[kind.key] = (time.monotonic() + 2 * before, 2 * before)
                yield f"the layer for {kind.image} could not be made: see {self._log.name}"
        for kind in missing:
            if self._failed.get(kind.key, (0.0, 0.0))[0] < time.monotonic():
                self._log.parent.mkdir(parents=True, exist_ok=True)
                process = start(["cleanroom-worker", "layer", kind.key], log=self._log, end_with_parent=True)
                self._making = (kind, process)
                return

    def end(self) -> None:
        """End what is being made."""
        if self._making is not None:
            kill_group(self._making[1])

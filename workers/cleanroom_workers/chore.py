"""What is done to images by itself when it is time: built anew, and compared with what was sealed.

The pool's process has each done by a process of its own, which gives way to others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cleanroom_base.run import Process, kill_group, start, wait
from cleanroom_images.catalogue import Catalogue

_END_TIMEOUT = 10.0
_HOUR = 3600.0


@dataclass(slots=True)
class Chore:
    """`cleanroom-worker COMMAND IMAGE...` for the images of which `due` says that it is time.

    `tried` notes that one is begun with: whatever becomes of it, it is not tried again at once.
    """

    command: str
    due: Callable[[], list[str]]
    tried: Callable[[str], None]
    log: Path
    _running: Process | None = None

    def tend(self) -> Iterator[str]:
        """See to it that what is due is being done, and say in words what was done."""
        if self._running is not None:
            status = self._running.poll()
            if status is None:
                return
            self._running = None
            if status != 0:
                yield f"{self.command} did not go well for all images: see {self.log.name}"
        due = self.due()
        if due:
            for name in due:
                self.tried(name)
            command = ["nice", "cleanroom-worker", self.command, *due]
            self._running = start(command, log=self.log, end_with_parent=True)
            yield f"{self.command} of {', '.join(due)}"

    def end(self) -> None:
        """End what is being done."""
        if self._running is not None:
            self._running.terminate()
            wait(self._running, _END_TIMEOUT)
            kill_group(self._running)


def refresh(catalogue: Catalogue, hours: float, logs: Path, low: Callable[[], bool] = lambda: False) -> Chore:
    """Build images anew that are older than so many hours; 0 means never. Not while the disk's room is `low`."""
    store = catalogue.store
    return Chore(
        "refresh",
        lambda: catalogue.due(hours * _HOUR) if hours and not low() else [],
        store.note_try,
        logs / "refresh.log",
    )


def verify(catalogue: Catalogue, hours: float, logs: Path) -> Chore:
    """Compare images with their seals of which that was done so many hours ago; 0 means never."""
    store = catalogue.store
    return Chore(
        "verify", lambda: store.unverified(hours * _HOUR) if hours else [], store.note_look, logs / "verify.log"
    )

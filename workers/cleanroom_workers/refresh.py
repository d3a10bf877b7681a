"""Images are refreshed: built anew with what their mirrors have by now, tried, and switched to when they are good.

By hand (`cleanroom image refresh`), or by the pool's process, which has it done by a process of its own every
`images.refresh` hours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cleanroom_base.errors import CleanroomError
from cleanroom_base.run import Process, kill_group, start, wait
from cleanroom_base.settings import Settings
from cleanroom_images import build
from cleanroom_images.catalogue import Catalogue
from cleanroom_workers.pool import Bell
from cleanroom_workers.trial import try_image

_END_TIMEOUT = 10.0
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What became of an image: `outcome` is `refreshed`, `unchanged` (nothing was new) or `refused` (`why` says why,
    and the one before stays). `digest` is that of the present one, None when there is none."""

    name: str
    outcome: str
    digest: str | None
    why: str | None


def refresh(settings: Settings, names: Iterable[str], tell: Callable[[str], None]) -> Iterator[Refreshed]:
    """Refresh images, each after the one that it extends; without names all that are built from a description.

    One that cannot be refreshed stays as it is. Raises InputError when one is not described.
    """
    catalogue = Catalogue(settings.state, settings.site)
    wanted = list(names) or catalogue.due(0)
    for name in wanted:
        if not catalogue.described(name):
            catalogue.description(name)  # which says why
    for name in catalogue.in_order(wanted):
        before = catalogue.store.digest(name)
        tell(f"refreshing {name}")
        try:
            build.refresh(catalogue, name, lambda image: try_image(settings, image, tell), observer=tell)
        except CleanroomError as error:
            yield Refreshed(name, "refused", before, str(error))
            continue
        digest = catalogue.store.digest(name)
        yield Refreshed(name, "unchanged" if digest == before else "refreshed", digest, None)
        # Guests that are kept ready are of the old one.
        Bell(settings.runtime / "pool.bell").ring()


class Refresher:
    """Has images refreshed when it is time: by a process of its own, which gives way to others."""

    def __init__(self, catalogue: Catalogue, hours: float, log: Path) -> None:
        """`hours` is the age at which an image is refreshed; 0 means never."""
        self._catalogue = catalogue
        self._age = hours * _HOUR
        self._log = log
        self._running: Process | None = None

    def tend(self) -> Iterator[str]:
        """See to it that what is due is being refreshed, and say in words what was done."""
        if self._running is not None:
            status = self._running.poll()
            if status is None:
                return
            self._running = None
            if status != 0:
                yield f"not all images could be refreshed: see {self._log.name}"
        due = self._catalogue.due(self._age) if self._age else []
        if due:
            for name in due:
                # Whatever becomes of it: it is not tried again at once.
                self._catalogue.store.note_try(name)
            command = ["nice", "cleanroom-worker", "refresh", *due]
            self._running = start(command, log=self._log, end_with_parent=True)
            yield f"refreshing {', '.join(due)}"

    def end(self) -> None:
        """End what is being done; what was built so far is taken away."""
        if self._running is not None:
            self._running.terminate()
            wait(self._running, _END_TIMEOUT)
            kill_group(self._running)

"""Images are refreshed: built anew with what their mirrors have by now, tried, and switched to when they are good.

By hand (`cleanroom image refresh`), or as a chore of the pool's process every `images.refresh` hours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from cleanroom_base.errors import CleanroomError
from cleanroom_base.settings import Settings
from cleanroom_images import build
from cleanroom_images.catalogue import Catalogue
from cleanroom_workers.pool import Bell
from cleanroom_workers.trial import try_image


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
    catalogue = Catalogue.of(settings)
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

"""What an event becomes: which recipe holds, which targets and phases follow from it, into which channel it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cleanroom_base.errors import CleanroomError, InfrastructureError, InputError
from cleanroom_base.settings import Settings
from cleanroom_db.products import Product
from cleanroom_db.ref_events import RefEvent
from cleanroom_db.releases import Planned, PlannedBuild
from cleanroom_db.states import SignatureState
from cleanroom_images.catalogue import Catalogue
from cleanroom_master.demands import demanded
from cleanroom_master.refs import contents
from cleanroom_recipes import loader
from cleanroom_recipes.model import Flaky, Gate, Recipe, RefKind, Target
from cleanroom_recipes.plan import PhasePlan, plan

OWN_RECIPE = "cleanroom.toml"
CHANNELS = {RefKind.TAG: "testing", RefKind.COMMIT: "snapshots"}


class Planner:
    """Plans releases by recipes and the images that there are."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def plan(self, event: RefEvent, product: Product) -> Planned:
        """What to build of an event. Raises InputError when its recipe is not valid, else InfrastructureError."""
        try:
            return self._plan(event, product)
        except CleanroomError:
            raise
        except Exception as error:
            # Whatever we stumble over in one event must not hold up the others.
            raise InfrastructureError(f"planning stumbled: {error!r}") from error

    def _plan(self, event: RefEvent, product: Product) -> Planned:
        assert event.commit is not None
        recipe = self.recipe_at(event.commit, product)
        recipe = replace(recipe, flaky=_stricter(recipe.flaky, Flaky(self._settings.text("gates.flaky"))))
        check_targets(self._settings, recipe)
        tagged = event.kind is RefKind.TAG
        channel = CHANNELS[event.kind]
        gates = demanded(self._settings, recipe, channel)
        if tagged and Gate.SIGNATURE in gates and event.signature is not SignatureState.GOOD:
            raise InputError(
                f"the gate 'signature' does not hold: the tag's signature is {event.signature.value}",
                hint="refs.keyring names the keys that are trusted",
            )
        builds = tuple(
            PlannedBuild(str(target), tuple(phase.name for phase in self.phases(recipe, target)))
            for target in recipe.targets
        )
        return Planned(builds, loader.to_json(recipe), loader.digest(recipe), channel, gates=gates)

    def recipe(self, stored: Mapping[str, Any]) -> Recipe:
        """A recipe as it was recorded with a release."""
        return loader.from_json(stored)

    def phases(self, recipe: Recipe, target: Target) -> tuple[PhasePlan, ...]:
        """The phases of a build, resolved."""
        return plan(recipe, target)

    def recipe_at(self, commit: str, product: Product) -> Recipe:
        """The product's own recipe at that commit, where the site allows and there is one, or the site's.

        Raises InputError where it is not valid, InfrastructureError when the commit is not to be had.
        """
        if self._settings.text("refs.own_recipes") == "yes":
            own = contents.read_file(self._settings, product.name, commit, OWN_RECIPE, limit=loader.SIZE_LIMIT)
            if own is not None:
                return loader.load(own, source=OWN_RECIPE, name=product.name, url=product.url)
        if product.recipe is None:
            raise InputError(
                f"{product.name} has no recipe: neither the site nor the commit has one",
                hint=f"put a {OWN_RECIPE} into the repository, or 'cleanroom product add --recipe'",
            )
        return loader.from_json(product.recipe)


def _stricter(one: Flaky, other: Flaky) -> Flaky:
    return max(one, other, key=list(Flaky).index)


def check_targets(settings: Settings, recipe: Recipe) -> None:
    """Raise InputError when a target's image is neither described nor imported."""
    catalogue = Catalogue.of(settings)
    for target in recipe.targets:
        catalogue.entry(target.image)

"""What must hold before a release goes into a channel."""

from __future__ import annotations

from cleanroom_base.settings import Settings
from cleanroom_recipes.model import Gate, Recipe


def demanded(settings: Settings, recipe: Recipe, channel: str) -> tuple[str, ...]:
    """What must hold before a release goes into a channel: what the site demands and what the recipe adds to it."""
    own = f"gates.{channel}"
    site = (*settings.words("gates.all"), *(settings.words(own) if own in settings.values else ()))
    return tuple(dict.fromkeys((str(Gate.BUILDS), *site, *recipe.gates_of(channel))))

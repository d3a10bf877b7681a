"""Watched repositories, from the first word about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cleanroom_base.settings import Settings
from cleanroom_db import products
from cleanroom_db.connection import Database
from cleanroom_db.products import Product
from cleanroom_db.states import SignaturePolicy
from cleanroom_master.refs import address, watch


def check_url(settings: Settings, url: str) -> None:
    """Raise TransportRefused unless the URL is one that the site allows. Asks nobody."""
    address.check(url, settings.words("refs.transports"))


def add(
    settings: Settings,
    database: Database,
    name: str,
    url: str,
    *,
    recipe: Mapping[str, Any] | None = None,
    tag_patterns: tuple[str, ...] = ("*",),
    branches: tuple[str, ...] = (),
    signature_policy: SignaturePolicy = SignaturePolicy.OPTIONAL,
    existing: bool = False,
) -> Product:
    """Record a product after a first look at its repository, so that every later tag is known to be new.

    Nothing is recorded of a repository that does not answer. Raises InputError and RepositoryAway.
    """
    check_url(settings, url)
    with database.transaction():
        product = products.add(
            database,
            name,
            url,
            recipe=recipe,
            tag_patterns=tag_patterns,
            branches=branches,
            signature_policy=signature_policy,
            existing=existing,
        )
        watch.look(settings, database, product)
        return products.get(database, name)

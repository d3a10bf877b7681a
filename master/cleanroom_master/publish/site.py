"""Where publication lives in a site: the one place that knows the directories."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from cleanroom_base.settings import Settings
from cleanroom_master.publish.repository import Repository
from cleanroom_master.publish.signing import Signer


def repository_directory(settings: Settings) -> Path:
    """The directory with the published tree (`current` in it), which a web server must be able to read."""
    return settings.state / "repository"


def open_signer(settings: Settings) -> Signer:
    """Open the signing key, made before the first publication; for the publisher alone. The caller closes it.

    Raises InfrastructureError when it expired, or vanished after something was published with it.
    """
    return Signer(
        settings.state / "publisher" / "gnupg",
        settings.runtime / "publisher",
        user_id=settings.text("publisher.key_name"),
        may_make=not (repository_directory(settings) / "current").is_symlink(),
    )


def open_repository(settings: Settings, signer: Signer) -> Repository:
    """The site's repository, for its one writer."""
    return Repository(
        repository_directory(settings),
        signer,
        origin=settings.text("publisher.origin"),
        url=settings.repository_url,
        valid=timedelta(days=settings.number("publisher.valid_days")) or None,
    )

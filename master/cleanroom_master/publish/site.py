"""Where publication lives in a site: the one place that knows the directories."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from cleanroom_base.settings import Settings
from cleanroom_master.publish import agent
from cleanroom_master.publish.repository import Repository
from cleanroom_master.publish.signing import Signer
from cleanroom_master.publish.token import Token


def repository_directory(settings: Settings) -> Path:
    """The directory with the published tree (`current` in it), which a web server must be able to read."""
    return settings.state / "repository"


def open_signer(settings: Settings) -> Signer:
    """Open the signing keys, the first made before the first publication; for the publisher alone, who closes it.

    One that expired, or vanished after something was published with it, is an error of whoever wants to sign then.
    """
    return Signer(
        settings.state / "publisher" / "gnupg",
        agent.site_home(settings).parent,
        user_id=settings.text("publisher.key_name"),
        may_make=not (repository_directory(settings) / "current").is_symlink(),
        token=_token(settings),
    )


def _token(settings: Settings) -> Token | None:
    module = settings.optional("publisher.pkcs11_module")
    pin = settings.optional("publisher.pin_file")
    if module is None:
        return None
    return Token(Path(module), Path(pin) if pin else settings.state / "publisher" / "pin")


def open_repository(settings: Settings, signer: Signer) -> Repository:
    """The site's repository, for its one writer."""
    return Repository(
        repository_directory(settings),
        signer,
        origin=settings.text("publisher.origin"),
        url=settings.repository_url,
        valid=timedelta(days=settings.number("publisher.valid_days")) or None,
    )

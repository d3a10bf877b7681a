"""A consumer of the published repository: a clean guest that does what the consumer's page says, and no more.

It is the demonstration's, which waits for it and shows what the programs say; the canary does the same by itself after
each publication.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import requests

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import Settings
from cleanroom_master import consumer_page
from cleanroom_recipes import canary
from cleanroom_recipes.model import Builder, Target
from cleanroom_recipes.request import Repository
from cleanroom_workers import package_sources
from cleanroom_workers.guest import Guest
from cleanroom_workers.host import Host

_STEP_TIMEOUT = 600.0


@dataclass(frozen=True)
class Installation:
    """What a consumer's guest did: the packages, how long it took in seconds, and what the programs printed."""

    client: str
    packages: tuple[str, ...]
    seconds: float
    reset_seconds: float
    printed: str


class Consumer:
    """A fresh guest with the repository configured by the consumer's page."""

    def __init__(self, settings: Settings, *, image: str, channel: str) -> None:
        self._settings = settings
        self._image = image
        self._channel = channel
        self._host = Host.open(settings)
        page = requests.get(f"http://localhost:{settings.whole('repository.port')}/", timeout=30)
        page.raise_for_status()
        self._page = page.text

    def apt(self, packages: Sequence[str], commands: Sequence[Sequence[str]]) -> Installation:
        """Install by apt and run `commands`. Raises InfrastructureError with the client's own words."""
        return self._install(Builder.DEB, ["apt-get", "install", "-y", "--no-install-recommends"], packages, commands)

    def dnf(self, packages: Sequence[str], commands: Sequence[Sequence[str]]) -> Installation:
        """Install by dnf and run `commands`. Raises InfrastructureError with the client's own words."""
        return self._install(Builder.RPM, ["dnf", "-y", "install"], packages, commands)

    def close(self) -> None:
        """End the connections to the host."""
        self._host.close()

    def _install(
        self, form: Builder, command: Sequence[str], packages: Sequence[str], commands: Sequence[Sequence[str]]
    ) -> Installation:
        # Debian's image is one of apt's as it is; it has to become one of dnf's.
        preparation = tuple(step.program for step in canary.preparation(form)) if form is Builder.RPM else ()
        isolation = self._settings.text("worker.isolation")
        with self._host.reset(self._image, isolation=isolation, network="repository", preparation=preparation) as guest:
            for program in preparation:
                guest.prepare(program)
            started = time.monotonic()
            self._configure(guest, Target(self._image, form))
            self._must(guest, [*command, *packages])
            printed = "".join(self._must(guest, one) for one in commands)
            seconds = time.monotonic() - started
            return Installation(command[0].partition("-")[0], tuple(packages), seconds, guest.reset_seconds, printed)

    def _configure(self, guest: Guest, target: Target) -> None:
        """Do what the page says, with the address at which a guest finds this machine."""
        page = consumer_page.read(self._page, self._settings.repository_url, self._channel, target)
        told = Repository(self._channel, "", apt=True, yum=True, page=page)
        for name, text in package_sources.published(told, self._image, self._host.repository).items():
            self._must(guest, ["mkdir", "-p", name.rpartition("/")[0]])
            guest.copy_in_bytes(text.encode(), name)
        repository = canary.consumer(target.format, canary.INSTALL, {})[0]
        self._must(guest, ["sh", "-c", repository.program])

    def _must(self, guest: Guest, command: Sequence[str]) -> str:
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        done = guest.run(command, timeout=_STEP_TIMEOUT, environment=environment)
        if done.exit_status != 0:
            printed = (done.stderr or done.stdout)[-2000:].decode(errors="replace").strip()
            what = " ".join(command)[:200]
            raise InfrastructureError(f"a consumer's {what} ended with {done.exit_status}:\n{printed}")
        return done.text

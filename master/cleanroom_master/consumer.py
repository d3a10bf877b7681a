"""A consumer of the published repository: a clean guest that does what the consumer's page says, and no more.

The page is read as a person reads it: the blocks to copy are taken from its HTML and put where the page says.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser

import requests

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import Settings
from cleanroom_recipes import builders
from cleanroom_recipes.model import Builder
from cleanroom_workers.guest import Guest
from cleanroom_workers.host import Host

_STEP_TIMEOUT = 600.0
# What makes a Debian guest a machine of dnf's: the same steps as before the tests of an rpm build.
_DNF_STEPS = ("update", "dnf")


class _Blocks(HTMLParser):
    """The texts of the page's blocks to copy, by their id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.blocks: dict[str, str] = {}
        self._open: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        identity = dict(attrs).get("id")
        if tag == "pre" and identity:
            self._open = identity
            self.blocks[identity] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "pre":
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.blocks[self._open] += data


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
        url = settings.repository_url
        # In the guest, this machine is the gateway; outside of this machine the address is the site's own.
        self._url = f"http://{self._host.gateway}:{settings.whole('repository.port')}"
        page = requests.get(f"http://localhost:{settings.whole('repository.port')}/", timeout=30)
        page.raise_for_status()
        self._blocks = {name: text.replace(url, self._url) for name, text in _Blocks(page.text).blocks.items()}

    def apt(self, packages: Sequence[str], commands: Sequence[Sequence[str]]) -> Installation:
        """Install by apt and run `commands`. Raises InfrastructureError with the client's own words."""
        name = f"apt-{self._channel}-{self._image}"
        with self._guest() as guest:
            started = time.monotonic()
            for line in self._block(f"{name}-key").splitlines():
                self._must(guest, line.split())
            guest.copy_in_bytes(self._block(f"{name}-sources").encode(), "/etc/apt/sources.list.d/cleanroom.sources")
            self._must(guest, ["apt-get", "update"])
            self._must(guest, ["apt-get", "install", "-y", "--no-install-recommends", *packages])
            printed = "".join(self._must(guest, command) for command in commands)
            return Installation("apt", tuple(packages), time.monotonic() - started, guest.reset_seconds, printed)

    def dnf(self, packages: Sequence[str], commands: Sequence[Sequence[str]]) -> Installation:
        """Install by dnf and run `commands`. Raises InfrastructureError with the client's own words."""
        preparation = tuple(_rpm_program(step) for step in _DNF_STEPS)
        with self._guest(preparation) as guest:
            for program in preparation:
                guest.prepare(program)
            started = time.monotonic()
            guest.copy_in_bytes(
                self._block(f"yum-{self._channel}-{self._image}-repo").encode(), "/etc/yum.repos.d/cleanroom.repo"
            )
            self._must(guest, ["dnf", "-y", "install", *packages])
            printed = "".join(self._must(guest, command) for command in commands)
            return Installation("dnf", tuple(packages), time.monotonic() - started, guest.reset_seconds, printed)

    def close(self) -> None:
        """End the connections to the host."""
        self._host.close()

    def _guest(self, preparation: tuple[str, ...] = ()) -> Guest:
        isolation = self._settings.text("worker.isolation")
        guest = self._host.reset(self._image, isolation=isolation, network="repository", preparation=preparation)
        # The way to package mirrors is a proxy; the repository is next door.
        direct = f'Acquire::http::Proxy::{self._host.gateway} "DIRECT";\n'
        guest.copy_in_bytes(direct.encode(), "/etc/apt/apt.conf.d/99repository")
        return guest

    def _block(self, name: str) -> str:
        try:
            return self._blocks[name]
        except KeyError:
            raise InfrastructureError(f"the consumer's page has no block {name} to copy") from None

    def _must(self, guest: Guest, command: Sequence[str]) -> str:
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        done = guest.run(command, timeout=_STEP_TIMEOUT, environment=environment)
        if done.exit_status != 0:
            printed = (done.stderr or done.stdout)[-2000:].decode(errors="replace").strip()
            raise InfrastructureError(f"a consumer's {' '.join(command)} ended with {done.exit_status}:\n{printed}")
        return done.text


def _rpm_program(name: str) -> str:
    """The text of a step of the rpm builder's phase `install`."""
    phases = builders.definition(Builder.RPM).phases
    steps = next(phase.steps for phase in phases if phase.name == "install")
    return builders.program(Builder.RPM, next(step for step in steps if step.name == name))

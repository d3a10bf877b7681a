"""Releases that passed, and a publisher that can be killed at any point of its work."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from database_server import add_product, begin, claim, end
from tiny_packages import sha256

from cleanroom_db import generations, phases, releases
from cleanroom_db.connection import Database
from cleanroom_db.phases import NewArtifact
from cleanroom_db.releases import Release
from cleanroom_db.states import ReleaseState
from cleanroom_master.files import FileStore
from cleanroom_master.publish.package import Package, PackageFile
from cleanroom_master.publish.repository import Repository
from cleanroom_master.publish.signing import Signer
from cleanroom_master.publisher import Publisher
from cleanroom_master.retention import Rule
from cleanroom_master.upkeep import Keeping


class Killed(BaseException):
    """The process is gone: nothing of ours that mends an error runs."""


class Deadly(Repository):
    """A repository whose user is killed at a point of its work."""

    point = ""

    def add_to_pool(self, source: Path, sha256: str, *, file: str | None = None) -> PackageFile:
        taken = super().add_to_pool(source, sha256, file=file)
        self._die("after the pool")
        return taken

    def change(
        self, number: int, *, start: int | None, added: Iterable[Package], removed: Iterable[Package], **how: Any
    ) -> Path:
        self._die("before build")
        built = super().change(number, start=start, added=added, removed=removed, **how)
        self._die("after build")
        return built

    def switch(self, number: int) -> None:
        self._die("before switch")
        super().switch(number)
        self._die("after switch")

    def _die(self, point: str) -> None:
        if self.point == point:
            raise Killed


class Shop:
    """Releases that passed, and the publisher that finds them."""

    def __init__(self, owner: Database, publisher: Database, signer: Signer, home: Path) -> None:
        self.owner, self.database, self._signer, self.home = owner, publisher, signer, home
        self.files = FileStore(home / "artifacts")
        self.kept, self.grace = 32, timedelta(days=3)
        self.rules: tuple[Rule, ...] = ()
        self.valid: timedelta | None = None
        self.canary = False
        add_product(owner)

    def repository(self, kind: type[Repository] = Repository) -> Repository:
        return kind(
            self.home / "repository", self._signer, origin="Test", url="http://repository.example", valid=self.valid
        )

    def publisher(self, repository: Repository | None = None) -> Publisher:
        keeping = Keeping(self.kept, self.grace, self.rules)
        return Publisher(
            self.database, repository or self.repository(), self.files, keeping=keeping, canary=self.canary
        )

    def deadly(self, point: str) -> Deadly:
        """A repository whose user is killed there."""
        repository = self.repository(Deadly)
        assert isinstance(repository, Deadly)
        repository.point = point
        return repository

    def passed(self, tag: str, *files: Path, kind: str = "deb") -> Release:
        """A release with these artifacts; a file ending in .changes is one whatever `kind` says."""
        release = claim(self.owner, tag)
        held = begin(self.owner, release)
        phases.start(self.owner, held, 0, "build")
        kinds = ["changes" if file.suffix == ".changes" else kind for file in files]
        pairs = zip(files, kinds, strict=True)
        artifacts = [NewArtifact(file.name, sha256(file), file.stat().st_size, one) for file, one in pairs]
        phases.add_artifacts(self.owner, held, "build", artifacts)
        for file, artifact in zip(files, artifacts, strict=True):
            self.files.take(file, artifact.sha256)
        end(self.owner, held)
        return release

    def settle(self) -> int:
        """Let a publisher work until nothing waits; returns how many releases and requests it settled."""
        publisher, settled = self.publisher(), 0
        while (now := publisher.turn()) or publisher.busy:
            settled += now
        return settled

    def state(self, release: Release) -> tuple[ReleaseState, str]:
        now = releases.get(self.database, release.id)
        return now.state, now.why

    def published(self) -> list[tuple[str, str]]:
        """The packages that consumers see, where record and disk agree."""
        number = self.repository().current()
        if number is None:
            return []
        recorded = sorted((one.name, one.version) for one in generations.contents(self.database, number))
        on_disk = sorted((one.name, one.version) for one in self.repository().read(number).packages)
        assert recorded == on_disk
        return recorded


@contextmanager
def publishing(shop: Shop) -> Iterator[None]:
    """A publisher that looks again and again, as the process does."""
    ended = threading.Event()
    publisher = shop.publisher()

    def work() -> None:
        while not ended.wait(0.05):
            publisher.turn()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

"""Packages that break each other where they meet: found before consumers do, and said of both."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from database_server import POLICY, add_product, begin
from recorded import claimed
from tiny_packages import make_deb, sha256

from cleanroom_db import attempts, generations, phases, releases
from cleanroom_db.conflicts import Place
from cleanroom_db.connection import Database
from cleanroom_db.phases import NewArtifact
from cleanroom_db.releases import Release
from cleanroom_db.states import ReleaseState
from cleanroom_db.view import release_view
from cleanroom_master.conflicts.check import Checker
from cleanroom_master.conflicts.together import Upkeep, look_at
from cleanroom_master.files import FileStore
from cleanroom_master.publish.repository import Repository
from cleanroom_master.publish.signing import Signer
from cleanroom_master.publisher import Publisher
from cleanroom_recipes.model import Outcome

LATER = timedelta(days=1)
PLACE = Place("testing", "debian-12")


class Shop:
    """Products whose packages meet in one channel."""

    def __init__(self, owner: Database, master: Database, publisher: Database, signer: Signer, home: Path) -> None:
        self.owner, self.master, self.home = owner, master, home
        self.files = FileStore(home / "artifacts")
        self.checker = Checker(master, [self.files])
        self.upkeep = Upkeep(master, self.checker)
        self.repository = Repository(home / "repository", signer, origin="Test", url="http://repository.example")
        self.publisher = Publisher(publisher, self.repository, self.files)
        for product in ("alpha", "beta"):
            add_product(owner, product)

    def release(
        self, product: str, tag: str, *files: Path, look: bool = True, gates: tuple[str, ...] = ("no-conflicts",)
    ) -> Release:
        """A release of these packages, built and judged as the master does it."""
        target = f"debian-12/{files[0].suffix[1:]}"
        release = claimed(self.owner, tag, target, product=product, gates=("builds", *gates))
        held = begin(self.master, release)
        artifacts = [
            NewArtifact(file.name, sha256(file), file.stat().st_size, file.suffix[1:], "x", "1", "all")
            for file in files
        ]
        for file, artifact in zip(files, artifacts, strict=True):
            self.files.take(file, artifact.sha256)
        phases.start(self.master, held, 0, "build")
        phases.add_artifacts(self.master, held, "build", artifacts)
        if look:
            look_at(self.master, self.checker, release.id, "testing", target)
        attempts.finish(self.master, held.attempt_id, held.owner, Outcome.PASSED, "", POLICY)
        return releases.get(self.owner, release.id)

    def state(self, release: Release) -> tuple[ReleaseState, str]:
        now = releases.get(self.owner, release.id)
        return now.state, now.why

    def waive(self, release: Release) -> Release:
        return releases.waive(
            self.owner, release.id, "anna", "no-conflicts", reason="known", expires_at=datetime.now(UTC) + LATER
        )

    def published(self) -> list[tuple[str, str]]:
        number = self.repository.current()
        return sorted((one.name, one.version) for one in generations.contents(self.owner, number or 0))


@pytest.fixture
def shop(owner: Database, master: Database, publisher: Database, signer: Signer, tmp_path: Path) -> Shop:
    return Shop(owner, master, publisher, signer, tmp_path / "site")


@pytest.fixture
def deb(tmp_path: Path):  # type: ignore[no-untyped-def]
    def deb(name: str, version: str, control: str = "", files: Mapping[str, str] | None = None, **more: object) -> Path:
        directory = tmp_path / f"{name}-{version}"
        directory.mkdir(exist_ok=True)
        return make_deb(directory, name, version, more_control=control, files=files, **more)  # type: ignore[arg-type]

    return deb


TOOL = {"/usr/bin/tool": "tool\n"}


def test_two_that_are_fine_alone_have_the_same_file_and_both_are_held(shop: Shop, deb) -> None:  # type: ignore[no-untyped-def]
    first = shop.release("alpha", "a1", deb("alpha", "1.0", files=TOOL))
    second = shop.release("beta", "b1", deb("beta", "2.0", files={"/bin/tool": "other\n"}))
    # The later one is told at its verdict; the one that only waits, when it is about to leave.
    state, why = shop.state(second)
    assert state is ReleaseState.HELD
    assert why == (
        "held: on debian-12/deb beta 2.0 and alpha 1.0 (alpha a1, which waits too) both have /usr/bin/tool;"
        " 1 of 2 gates hold"
    )
    assert shop.state(first)[0] is ReleaseState.PASSED
    assert shop.publisher.turn() == 0
    state, why = shop.state(first)
    assert state is ReleaseState.HELD
    assert "alpha 1.0 and beta 2.0 (beta b1, which waits too) both have /usr/bin/tool" in why
    # The gate says so too, although the publisher found it.
    [gate] = [one for one in release_view(shop.owner, "alpha", "a1")["gates"] if one["gate"] == "no-conflicts"]
    assert gate["state"] == "fails"

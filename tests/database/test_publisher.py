"""The publisher between the record and the disk: killed at any point, and with releases that are not good."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from shop import Killed, Shop
from surroundings import variables
from tiny_packages import make_deb, make_rpm, sha256

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import load
from cleanroom_db import generations, publications, releases
from cleanroom_db.generations import NewPackage
from cleanroom_db.states import ReleaseState
from cleanroom_master.publish.package import PackageFile
from cleanroom_master.publish.repository import Repository
from cleanroom_master.publisher import AnotherPublisher, only_one

# Is the one publisher until it is killed.
HOLD = """
import sys
from cleanroom_base.settings import load
from cleanroom_master.publisher import only_one
with only_one(load()):
    print("has it", flush=True)
    sys.stdin.read()
"""


def test_what_passed_is_published(shop: Shop, tmp_path: Path) -> None:
    release = shop.passed("v1", make_deb(tmp_path))
    assert shop.publisher().turn() == 1
    assert shop.state(release) == (ReleaseState.PUBLISHED, "published in testing, generation 1")
    assert shop.published() == [("tiny", "1.0")]
    assert shop.publisher().turn() == 0


@pytest.mark.parametrize("point", ["after the pool", "before build", "after build", "before switch", "after switch"])
def test_killed_at_any_point_it_publishes_once(shop: Shop, tmp_path: Path, point: str) -> None:
    first = shop.passed("v1", make_deb(tmp_path))
    shop.publisher().turn()
    second = shop.passed("v2", make_deb(tmp_path, version="2.0"))
    with pytest.raises(Killed):
        shop.publisher(shop.deadly(point)).turn()
    switched = point == "after switch"
    assert shop.repository().current() == (2 if switched else 1)

    publisher = shop.publisher()
    publisher.recover()
    assert shop.state(second)[0] is (ReleaseState.PUBLISHED if switched else ReleaseState.PASSED)
    assert publisher.turn() == (0 if switched else 1)
    assert shop.state(second)[0] is ReleaseState.PUBLISHED
    assert shop.state(first) == (ReleaseState.PUBLISHED, "published in testing, generation 1")
    assert shop.published() == [("tiny", "1.0"), ("tiny", "2.0")]
    assert generations.unswitched(shop.database) is None
    assert publications.pending(shop.database) == []


def test_a_version_with_other_bytes_is_refused_and_its_release_held(shop: Shop, tmp_path: Path) -> None:
    shop.passed("v1", make_deb(tmp_path))
    shop.publisher().turn()
    (tmp_path / "other").mkdir()
    again = shop.passed("v1-again", make_deb(tmp_path / "other", greeting="bye"))
    assert shop.publisher().turn() == 0
    state, why = shop.state(again)
    assert state is ReleaseState.HELD
    assert "tiny 1.0 (amd64) was published before with other bytes" in why
    assert shop.published() == [("tiny", "1.0")]


def test_two_releases_with_one_version_do_not_pass_as_one(shop: Shop, tmp_path: Path) -> None:
    first = shop.passed("v1", make_deb(tmp_path))
    (tmp_path / "other").mkdir()
    second = shop.passed("v1-again", make_deb(tmp_path / "other", greeting="bye"))
    publisher = shop.publisher()
    while publisher.turn():
        pass
    assert shop.state(first)[0] is ReleaseState.PUBLISHED
    state, why = shop.state(second)
    assert state is ReleaseState.HELD
    assert "other bytes" in why


def test_the_same_bytes_again_are_no_harm(shop: Shop, tmp_path: Path) -> None:
    file = make_deb(tmp_path)
    copy = tmp_path / "copy" / file.name
    copy.parent.mkdir()
    shutil.copyfile(file, copy)
    for tag, one in (("v1", file), ("v1-again", copy)):
        release = shop.passed(tag, one)
        assert shop.publisher().turn() == 1
        assert shop.state(release)[0] is ReleaseState.PUBLISHED
    assert shop.published() == [("tiny", "1.0")]


def test_a_bad_release_spoils_no_good_one(shop: Shop, tmp_path: Path) -> None:
    good = shop.passed("v1", make_deb(tmp_path))
    lie = tmp_path / "lie_2.0_amd64.deb"
    lie.write_bytes(b"this is no package")
    bad = shop.passed("v2", lie)
    also_good = shop.passed("v3", make_rpm(tmp_path, "round"), kind="rpm")
    assert shop.settle() == 2
    assert shop.state(good)[0] is ReleaseState.PUBLISHED
    assert shop.state(also_good)[0] is ReleaseState.PUBLISHED
    state, why = shop.state(bad)
    assert (state, why.startswith("not published: ")) == (ReleaseState.HELD, True)
    assert "lie_2.0_amd64.deb" in why


def test_a_release_without_packages_is_published(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "result.txt"
    file.write_text("done\n")
    release = shop.passed("v1", file, kind="file")
    assert shop.publisher().turn() == 1
    assert shop.state(release)[0] is ReleaseState.PUBLISHED


def test_a_release_whose_file_is_gone_is_held_until_it_is_back(shop: Shop, tmp_path: Path) -> None:
    file = make_deb(tmp_path)
    kept = shop.files.path(sha256(file))
    release = shop.passed("v1", file)
    away = kept.rename(tmp_path / "away")
    other = shop.passed("v2", make_deb(tmp_path, version="2.0"))
    assert shop.publisher().turn() == 1
    state, why = shop.state(release)
    assert state is ReleaseState.HELD
    assert f"the kept file tiny_1.0_amd64.deb (sha256 {kept.name}) is gone" in why
    assert shop.state(other)[0] is ReleaseState.PUBLISHED
    assert publications.pending(shop.database) == []
    away.rename(kept)
    releases.approve(shop.owner, release.id, "Anna", "it is back")
    assert shop.publisher().turn() == 1
    assert shop.state(release)[0] is ReleaseState.PUBLISHED


def test_a_store_that_is_away_is_the_surroundings_fault(shop: Shop, tmp_path: Path) -> None:
    release = shop.passed("v1", make_deb(tmp_path))
    store = shop.home / "artifacts"
    away = store.rename(tmp_path / "away")
    with pytest.raises(InfrastructureError):
        shop.publisher().turn()
    assert shop.state(release)[0] is ReleaseState.PASSED
    away.rename(store)
    assert shop.publisher().turn() == 1
    assert shop.state(release)[0] is ReleaseState.PUBLISHED


def test_what_passes_in_the_same_second_is_one_generation(shop: Shop, tmp_path: Path) -> None:
    made = [shop.passed(f"v{number}", make_deb(tmp_path, f"tiny{number}")) for number in range(20)]
    # However slow the machine is: all that was ready together leaves together.
    publisher = shop.publisher()
    publisher.patience = 60.0
    assert publisher.turn() == 20
    assert [one.number for one in generations.history(shop.owner)] == [1]
    assert {shop.state(release)[1] for release in made} == {"published in testing, generation 1"}


class Slow(Repository):
    """A repository in which one package takes long to be signed."""

    signed = threading.Event()

    def add_to_pool(self, source: Path, sha256: str, *, file: str | None = None) -> PackageFile:
        if file is not None and file.startswith("slow"):
            assert self.signed.wait(60)
        return super().add_to_pool(source, sha256, file=file)


def test_nobody_waits_for_another_s_slow_signing(shop: Shop, tmp_path: Path) -> None:
    slow = shop.passed("v1", make_deb(tmp_path, "slow"))
    quick = shop.passed("v2", make_deb(tmp_path, "quick"))
    repository = shop.repository(Slow)
    publisher = shop.publisher(repository)
    settled = 0
    while not settled:
        settled = publisher.turn()
    assert (settled, publisher.busy) == (1, True)
    assert shop.state(quick)[0] is ReleaseState.PUBLISHED
    assert shop.state(slow)[0] is ReleaseState.PASSED
    assert isinstance(repository, Slow)
    repository.signed.set()
    while publisher.busy:
        publisher.turn()
    assert shop.state(slow) == (ReleaseState.PUBLISHED, "published in testing, generation 2")


class Busy(Repository):
    """A repository beside which another release passes while one is taken in."""

    meanwhile: Callable[[], object] | None = None

    def add_to_pool(self, source: Path, sha256: str, *, file: str | None = None) -> PackageFile:
        if self.meanwhile is not None:
            passed, self.meanwhile = self.meanwhile, None
            passed()
        return super().add_to_pool(source, sha256, file=file)


def test_what_passes_while_others_are_prepared_leaves_with_them(shop: Shop, tmp_path: Path) -> None:
    shop.passed("v1", make_deb(tmp_path))
    later = make_deb(tmp_path, version="2.0")
    repository = shop.repository(Busy)
    assert isinstance(repository, Busy)
    repository.meanwhile = lambda: shop.passed("v2", later)
    publisher = shop.publisher(repository)
    publisher.patience = 60.0
    assert publisher.turn() == 2
    assert [one.number for one in generations.history(shop.owner)] == [1]


# A rpmsign that waits, for one package, until somebody lets it go on.
SLOW_RPMSIGN = """#!/bin/sh
case "$*" in
*/slow-*) while [ ! -e {gate} ]; do sleep 0.05; done ;;
esac
exec {rpmsign} "$@"
"""


def test_of_twenty_that_pass_at_once_none_waits_for_the_slow_one_and_none_is_lost(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With gpg's and rpm's own programs; one of them is slow for one package."""
    programs, gate = tmp_path / "programs", tmp_path / "gate"
    programs.mkdir()
    rpmsign = programs / "rpmsign"
    rpmsign.write_text(SLOW_RPMSIGN.format(gate=gate, rpmsign=shutil.which("rpmsign")))
    rpmsign.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    slow = shop.passed("v0", make_rpm(tmp_path, "slow"), kind="rpm")
    quick = [shop.passed(f"v{number}", make_deb(tmp_path, f"tiny{number}")) for number in range(1, 18)]
    quick += [shop.passed(f"v{number}", make_rpm(tmp_path, f"round{number}"), kind="rpm") for number in (18, 19)]
    publisher = shop.publisher()
    publisher.patience, settled = 2.0, 0
    while settled < 19:
        settled += publisher.turn()
    assert {shop.state(release)[0] for release in quick} == {ReleaseState.PUBLISHED}
    assert shop.state(slow)[0] is ReleaseState.PASSED
    # One, unless this machine is so slow that they are not ready together.
    used = len(generations.history(shop.owner))
    assert used < 5
    gate.touch()
    while publisher.busy:
        publisher.turn()
    assert shop.state(slow) == (ReleaseState.PUBLISHED, f"published in testing, generation {used + 1}")
    assert len(shop.published()) == 20
    assert shop.repository().verify(used + 1) == []


def test_a_clock_that_jumped_back_stops_nothing(shop: Shop, tmp_path: Path) -> None:
    shop.passed("v1", make_deb(tmp_path))
    shop.settle()
    listing = shop.home / "repository/generations/1/generation.json"
    ahead = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    listing.write_text(re.sub(r'"at": "[^"]+"', f'"at": "{ahead.isoformat()}"', listing.read_text()))
    release = shop.passed("v2", make_deb(tmp_path, version="2.0"))
    assert shop.settle() == 1
    assert shop.state(release)[0] is ReleaseState.PUBLISHED
    assert shop.repository().read(2).at > ahead


def test_ten_thousand_packages_in_one_release_are_looked_up_at_once(shop: Shop) -> None:
    packages = [
        NewPackage(
            "testing", "debian-12/deb", "deb", f"p{n}", "1", "amd64", f"p{n}_1_amd64.deb", "0" * 64, "0" * 64, 1, None
        )
        for n in range(10_000)
    ]
    made = generations.prepare(shop.database, actor="x", reason="x", added=packages)
    generations.switched(shop.database, made)
    assert len(generations.ever_published(shop.database, packages)) == 10_000
    assert len(generations.present(shop.database, packages)) == 10_000
    assert generations.withdrawn_among(shop.database, packages) == []


def test_a_second_publisher_is_refused_and_a_killed_one_followed(tmp_path: Path) -> None:
    settings = load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path)})
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env={**variables(), "CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with first:
        assert first.stdout is not None
        assert first.stdout.read(6) == b"has it"
        with pytest.raises(AnotherPublisher), only_one(settings, patience=0):
            pass
        first.kill()
    with only_one(settings, patience=0):
        pass

"""The repository's upkeep: edited by hand and made whole again, channels that keep so many, and garbage."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from shop import Shop
from test_taking_back import promoted, rolled_back, withdrawn
from tiny_packages import make_deb, make_rpm, make_source, sha256

from cleanroom_db import generations, requests
from cleanroom_db.generations import Aged, ChannelPackage
from cleanroom_db.releases import Release
from cleanroom_db.requests import Request
from cleanroom_db.states import ReleaseState, RequestKind, RequestState
from cleanroom_db.view import release_view
from cleanroom_master import upkeep
from cleanroom_master.publish.pool import Pool
from cleanroom_master.retention import Rule, surplus


def asked(shop: Shop, kind: RequestKind) -> Request:
    request = requests.ask(shop.owner, kind, actor="anna", subject="x")
    shop.publisher().turn()
    return requests.get(shop.owner, request.id)


@pytest.fixture
def both(shop: Shop, tmp_path: Path) -> Path:
    """The repository with a .deb and an rpm in it."""
    shop.passed("v1", make_deb(tmp_path))
    shop.passed("v2", make_rpm(tmp_path, "round"), kind="rpm")
    assert shop.settle() == 2
    return shop.home / "repository"


def the(both: Path, pattern: str) -> Path:
    [found] = both.glob(pattern)
    return found


def test_a_repository_that_nobody_touched_is_as_it_was_published(shop: Shop, both: Path) -> None:
    done = asked(shop, RequestKind.VERIFY)
    assert (done.state, done.result["problems"]) == (RequestState.DONE, [])
    done = asked(shop, RequestKind.REPAIR)
    assert (done.generation, done.result["problems"]) == (None, [])


EDITS: dict[str, Callable[[Path], object]] = {
    "files/apt/pool/tiny/*/tiny_1.0_amd64.deb": lambda file: file.write_bytes(b"other"),
    "current/apt/dists/testing/InRelease": lambda file: file.unlink(),
    "current/apt/dists/testing/debian-12/binary-amd64/Packages.gz": lambda file: file.write_bytes(b""),
    "current/yum/debian-12/testing/repodata/repomd.xml": lambda file: file.write_text("<repomd/>"),
    "current/index.html": lambda file: file.write_text("<script>"),
    "current/listing/": lambda directory: (directory / "stranger").write_text("hello"),
    "current/apt/": lambda directory: (directory / "evil.deb").write_text("hello"),
    "current/generation.json": lambda file: file.write_text("{}"),
}


@pytest.mark.parametrize("place", list(EDITS))
def test_what_somebody_edited_is_named_and_made_anew(shop: Shop, both: Path, place: str) -> None:
    edited = the(both, place)
    wanted = place.removeprefix("current/").removeprefix("files/").replace("*", edited.parent.name)
    EDITS[place](edited)
    done = asked(shop, RequestKind.VERIFY)
    places = {problem["place"] for problem in done.result["problems"]}
    assert any(one.startswith(wanted) for one in places), places
    before = shop.repository().current()
    done = asked(shop, RequestKind.REPAIR)
    assert (done.state, done.result["left"]) == (RequestState.DONE, [])
    assert done.generation == shop.repository().current() != before
    assert shop.repository().verify(shop.repository().current() or 0) == []
    assert shop.published() == [("round", "1.0-1"), ("tiny", "1.0")]


def test_what_cannot_be_had_again_is_said_and_nothing_changes(shop: Shop, both: Path) -> None:
    rpm = the(both, "files/yum/debian-12/testing/pool/round/*/*.rpm")
    rpm.write_bytes(b"other")
    before = shop.repository().current()
    done = asked(shop, RequestKind.REPAIR)
    [left] = done.result["left"]
    assert left["place"] == rpm.name
    assert "neither the pool nor the artifacts have its bytes" in left["message"]
    assert shop.repository().current() == before


def test_a_generation_of_a_form_that_is_not_known_is_made_anew(shop: Shop, both: Path, tmp_path: Path) -> None:
    """As one that was written by a version before there were listings."""
    the(both, "current/generation.json").write_text('{"number": 1, "packages": []}')
    shop.passed("v3", make_deb(tmp_path, version="2.0"))
    assert shop.settle() == 1
    assert shop.published() == [("round", "1.0-1"), ("tiny", "1.0"), ("tiny", "2.0")]


def test_signatures_are_renewed_before_their_validity_ends(shop: Shop, both: Path) -> None:
    shop.valid = timedelta(days=10)
    repository = shop.repository()
    release = the(both, "current/apt/dists/testing/Release")
    assert "Valid-Until" not in release.read_text()
    assert not repository.must_sign_anew()
    assert not upkeep.renew(shop.database, repository)
    before = repository.current()
    for file in both.glob("current/apt/dists/*/InRelease"):
        os.utime(file, (time.time() - 6 * 86400,) * 2)
    assert upkeep.renew(shop.database, repository)
    assert repository.current() != before
    text = the(both, "current/apt/dists/testing/Release").read_text()
    moments = {line.split(": ")[0]: line.split(": ")[1] for line in text.splitlines() if ": " in line}
    until, at = (parsedate_to_datetime(moments[name]) for name in ("Valid-Until", "Date"))
    assert until - at == shop.valid
    assert not repository.must_sign_anew()
    assert shop.published() == [("round", "1.0-1"), ("tiny", "1.0")]
    assert repository.verify(repository.current() or 0) == []


# -- garbage ---------------------------------------------------------------------------------------------------


@pytest.fixture
def old(shop: Shop, tmp_path: Path) -> list[Release]:
    """Three releases, of which the second was withdrawn; the time promised to readers is over."""
    made = []
    for number in (1, 2, 3):
        made.append(shop.passed(f"v{number}", make_deb(tmp_path, version=f"{number}.0")))
        shop.settle()
    withdrawn(shop, made[1])
    shop.settle()
    shop.kept, shop.grace = 1, timedelta(0)
    return made


def files(shop: Shop) -> set[str]:
    return {path.name for path in (shop.home / "repository/files").rglob("*.deb")}


def test_what_no_generation_has_goes(shop: Shop, old: list[Release]) -> None:
    assert len(files(shop)) == 3
    done = asked(shop, RequestKind.COLLECT)
    assert done.state is RequestState.DONE
    assert sorted(done.result["generations"]) == [1, 2, 3]
    assert done.result["files"] == 1
    assert files(shop) == {"tiny_1.0_amd64.deb", "tiny_3.0_amd64.deb"}
    assert shop.repository().numbers() == [4]
    assert shop.repository().verify(4) == []
    assert len(list((shop.home / "repository/pool").glob("*/*"))) == 2
    assert asked(shop, RequestKind.COLLECT).result["files"] == 0


def test_what_readers_were_promised_stays(shop: Shop, old: list[Release]) -> None:
    shop.grace = timedelta(days=1)
    done = asked(shop, RequestKind.COLLECT)
    assert (done.result["generations"], done.result["files"]) == ([], 0)
    assert len(files(shop)) == 3
    # So many generations stay whatever their age, and what they have with them.
    shop.kept, shop.grace = 2, timedelta(0)
    done = asked(shop, RequestKind.COLLECT)
    assert (sorted(done.result["generations"]), done.result["files"]) == ([1, 2], 0)
    rolled_back(shop, 3)
    shop.settle()
    assert shop.published() == [("tiny", "1.0"), ("tiny", "3.0")]


def test_killed_at_any_point_a_collection_does_no_harm(
    shop: Shop, old: list[Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    points = 0
    while True:
        calls = 0

        def dying(real: Callable[..., object], last: int = points) -> Callable[..., object]:
            def die(*arguments: object, **how: object) -> object:
                nonlocal calls
                calls += 1
                if calls > last:
                    raise KeyboardInterrupt
                return real(*arguments, **how)

            return die

        with monkeypatch.context() as patched:
            for place, name in ((Path, "unlink"), (Path, "rename"), (shutil, "rmtree")):
                patched.setattr(place, name, dying(getattr(place, name)))
            try:
                upkeep.collect(shop.database, shop.repository(), upkeep.Keeping(1, timedelta(0), ()))
                break
            except KeyboardInterrupt:
                points += 1
        shop.publisher().recover()
        assert shop.repository().verify(4) == []
    assert points > 3
    assert files(shop) == {"tiny_1.0_amd64.deb", "tiny_3.0_amd64.deb"}


def test_the_files_of_a_source_package_stay_with_it(shop: Shop, tmp_path: Path) -> None:
    dsc = make_source(tmp_path)
    companions = [tmp_path / "tiny_1.0.orig.tar.gz", tmp_path / "tiny_1.0-1.debian.tar.xz"]
    pool: Pool = shop.repository()._pool
    sums = [sha256(file) for file in companions]
    for file, checksum in zip(companions, sums, strict=True):
        pool.add_companion(file, checksum)
    package = pool.add_package(dsc, sha256(dsc), dsc.name)
    later = datetime.now(UTC).timestamp() + 60
    pool.remove_unneeded({package.sha256}, {package.built_sha256}, before=later)
    assert all(pool.path(checksum).exists() for checksum in [package.sha256, *sums])
    pool.remove_unneeded(set(), set(), before=later)
    assert not any(pool.path(checksum).exists() for checksum in [package.sha256, *sums])


# -- what channels keep ----------------------------------------------------------------------------------------


def aged(version: str, days: float, name: str = "tiny") -> Aged:
    package = ChannelPackage(
        *(int(float(version) * 10), "testing", "debian-12/deb", "deb", name, version, "amd64", f"{name}.deb"),
        *("0" * 64, f"built {version}", 1, None, 1, None, None),
    )
    return Aged(package, datetime(2030, 1, 31, tzinfo=UTC) - timedelta(days=days))


@pytest.mark.parametrize(
    ("versions", "days", "stable", "gone"),
    [
        (2, None, set(), ["1.0", "2.0"]),
        (None, 5, set(), ["1.0", "2.0"]),
        (3, 5, set(), ["1.0"]),
        (1, 15, set(), ["1.0"]),
        (2, None, {"built 1.0"}, ["2.0"]),
        (1, 0.5, set(), ["1.0", "2.0", "3.0"]),
    ],
)
def test_what_a_channel_keeps(versions: int | None, days: float | None, stable: set[str], gone: list[str]) -> None:
    there = [aged("1.0", 20), aged("2.0", 10), aged("3.0", 4), aged("4.0", 2), aged("1.0", 90, "other")]
    age = None if days is None else timedelta(days=days)
    found = surplus(Rule("testing", versions, age), there, stable, now=datetime(2030, 1, 31, tzinfo=UTC))
    assert sorted(one.package.version for one in found) == gone


def test_what_a_channel_keeps_no_more_is_retired(shop: Shop, tmp_path: Path) -> None:
    made = []
    for number in (1, 2, 3):
        made.append(shop.passed(f"v{number}", make_deb(tmp_path, version=f"{number}.0")))
        shop.settle()
    promoted(shop, made[0])
    shop.settle()
    shop.rules = (Rule("testing", 1, None),)
    shop.publisher().keep_up()
    assert shop.published() == [("tiny", "1.0"), ("tiny", "1.0"), ("tiny", "3.0")]
    state, why = shop.state(made[1])
    assert (state, why) == (ReleaseState.PUBLISHED, "testing: retired: testing keeps 1 versions of a package")
    view = release_view(shop.owner, "hello", "v2")
    assert [(gone["channel"], gone["how"]) for gone in view["removed"]] == [("testing", "retention")]
    now = generations.current(shop.owner)
    assert now is not None
    assert (now.number, now.actor) == (5, "publisher")
    shop.publisher().keep_up()
    assert shop.repository().current() == 5

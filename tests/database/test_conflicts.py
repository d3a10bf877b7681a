"""Packages that break each other where they meet: found before consumers do, and said of both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest
from database_server import POLICY, Server, add_product, begin
from recorded import claimed
from tiny_packages import NOTHING, make_deb, make_rpm, sha256

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_db import attempts, conflicts, packages, phases, releases
from cleanroom_db.conflicts import ConflictKind, Place
from cleanroom_db.connection import Database
from cleanroom_db.phases import NewArtifact
from cleanroom_db.releases import Release
from cleanroom_db.roles import Role
from cleanroom_db.states import ReleaseState
from cleanroom_db.view import release_view
from cleanroom_master import cli
from cleanroom_master.conflicts import check, union
from cleanroom_master.conflicts.base import Base
from cleanroom_master.conflicts.check import Checker
from cleanroom_master.conflicts.together import Upkeep, look_at
from cleanroom_master.files import FileStore
from cleanroom_master.publish.repository import Repository
from cleanroom_master.publish.signing import Signer
from cleanroom_master.publisher import Publisher
from cleanroom_recipes.model import Outcome

PLACE = Place("testing", "debian-12")
TOOL = {"/usr/bin/tool": "tool\n"}
HELD, PASSED, PUBLISHED = ReleaseState.HELD, ReleaseState.PASSED, ReleaseState.PUBLISHED


class Shop:
    """Products whose packages meet in one channel."""

    def __init__(self, owner: Database, master: Database, publisher: Database, signer: Signer, home: Path) -> None:
        self.owner, self.master, self.home = owner, master, home
        self.files = FileStore(home / "artifacts")
        self.checker = Checker(master, [self.files])
        self.repository = Repository(home / "repository", signer, origin="Test", url="http://repository.example")
        self.publisher = Publisher(publisher, self.repository, self.files)
        for product in ("alpha", "beta", "gamma"):
            add_product(owner, product)

    def release(self, product: str, tag: str, *files: Path, gates: tuple[str, ...] = ("no-conflicts",)) -> Release:
        """A release of these packages that passed its builds, and was not looked at for conflicts."""
        release, held = self.build(product, tag, *files, gates=gates)
        attempts.finish(self.master, held.attempt_id, held.owner, Outcome.PASSED, "", POLICY)
        return releases.get(self.owner, release.id)

    def judged(self, product: str, tag: str, *files: Path) -> Release:
        """A release of these packages, looked at and judged as the master does it."""
        release, held = self.build(product, tag, *files, gates=("no-conflicts",))
        look_at(self.master, self.checker, release.id, "testing", f"debian-12/{files[0].suffix[1:]}")
        attempts.finish(self.master, held.attempt_id, held.owner, Outcome.PASSED, "", POLICY)
        return releases.get(self.owner, release.id)

    def build(self, product: str, tag: str, *files: Path, gates: tuple[str, ...]) -> tuple[Release, attempts.Lease]:
        release = claimed(
            self.owner, tag, f"debian-12/{files[0].suffix[1:]}", product=product, gates=("builds", *gates)
        )
        held = begin(self.master, release)
        artifacts = [
            NewArtifact(file.name, sha256(file), file.stat().st_size, file.suffix[1:], "x", "1", "all")
            for file in files
        ]
        for file, artifact in zip(files, artifacts, strict=True):
            self.files.take(file, artifact.sha256)
        phases.start(self.master, held, 0, "build")
        phases.add_artifacts(self.master, held, "build", artifacts)
        return release, held

    def published(self, product: str, tag: str, *files: Path) -> Release:
        release = self.judged(product, tag, *files)
        assert self.publisher.turn() == 1
        return release

    def state(self, release: Release) -> ReleaseState:
        return releases.get(self.owner, release.id).state

    def why(self, release: Release) -> str:
        return releases.get(self.owner, release.id).why

    def upkeep(self) -> None:
        """What the master does between builds, with nothing that an earlier turn put off."""
        Upkeep(self.master, self.checker).turn()

    def waive(self, release: Release) -> Release:
        later = datetime.now(UTC) + timedelta(days=1)
        return releases.waive(self.owner, release.id, "anna", "no-conflicts", reason="known", expires_at=later)


@pytest.fixture
def shop(owner: Database, master: Database, publisher: Database, signer: Signer, tmp_path: Path) -> Shop:
    return Shop(owner, master, publisher, signer, tmp_path / "site")


class Debs(Protocol):
    def __call__(self, name: str, version: str, control: str = "", files: Mapping[str, str] = NOTHING) -> Path: ...


@pytest.fixture
def deb(tmp_path: Path) -> Debs:
    def deb(name: str, version: str, control: str = "", files: Mapping[str, str] = NOTHING) -> Path:
        (tmp_path / f"{name}-{version}").mkdir(exist_ok=True)
        return make_deb(tmp_path / f"{name}-{version}", name, version, more_control=control, files=files)

    return deb


# -- files -------------------------------------------------------------------------------------------------------------


def test_two_that_are_fine_alone_have_the_same_file_and_both_are_held(shop: Shop, deb: Debs) -> None:
    first = shop.judged("alpha", "a1", deb("alpha", "1.0", files=TOOL))
    second = shop.judged("beta", "b1", deb("beta", "2.0", files={"/bin/tool": "other\n"}))
    # The later one is told at its verdict; the one that only waits, when it is about to leave.
    assert shop.state(second) is HELD
    assert shop.why(second) == (
        "held: on debian-12/deb beta 2.0 and alpha 1.0 (alpha a1, which waits too) both have /usr/bin/tool;"
        " 1 of 2 gates hold"
    )
    assert shop.state(first) is PASSED
    assert shop.publisher.turn() == 0
    assert shop.state(first) is HELD
    assert "alpha 1.0 and beta 2.0 (beta b1, which waits too) both have /usr/bin/tool" in shop.why(first)
    # The gate says so too, although the publisher found it.
    [gate] = [one for one in release_view(shop.owner, "alpha", "a1")["gates"] if one["gate"] == "no-conflicts"]
    assert gate["state"] == "fails"
    # Neither goes because the other is held.
    shop.upkeep()
    assert shop.publisher.turn() == 0
    assert (shop.state(first), shop.state(second)) == (HELD, HELD)


def test_two_that_passed_in_the_same_second_are_found_by_the_publisher(shop: Shop, deb: Debs) -> None:
    first = shop.release("alpha", "a1", deb("alpha", "1.0", files=TOOL))
    second = shop.release("beta", "b1", deb("beta", "2.0", files=TOOL))
    third = shop.release("gamma", "g1", deb("gamma", "1.0"))
    assert shop.publisher.turn() == 1
    assert [shop.state(one) for one in (first, second, third)] == [HELD, HELD, PUBLISHED]
    assert "beta b1" in shop.why(first)
    assert "alpha a1" in shop.why(second)


def test_what_is_published_wins(shop: Shop, deb: Debs) -> None:
    first = shop.published("alpha", "a1", deb("alpha", "1.0", files=TOOL))
    second = shop.judged("beta", "b1", deb("beta", "2.0", files=TOOL))
    assert shop.state(second) is HELD
    assert "beta 2.0 and alpha 1.0 (published in testing) both have /usr/bin/tool" in shop.why(second)
    assert shop.state(first) is PUBLISHED
    # A newer version of the published package gives the file away: what it kept goes by itself.
    shop.published("alpha", "a2", deb("alpha", "1.1"))
    shop.upkeep()
    assert shop.state(second) is PASSED
    assert shop.publisher.turn() == 1
    assert shop.state(second) is PUBLISHED


@pytest.mark.parametrize("relation", ["Replaces: alpha (<< 2)\n", "Conflicts: alpha\n", "Breaks: alpha\n"])
def test_who_says_how_it_gets_along_may_have_the_file(shop: Shop, deb: Debs, relation: str) -> None:
    shop.published("alpha", "a1", deb("alpha", "1.0", files=TOOL))
    assert shop.state(shop.judged("beta", "b1", deb("beta", "2.0", relation, TOOL))) is PASSED


def test_what_replaces_another_version_does_not_get_along_with_this_one(shop: Shop, deb: Debs) -> None:
    shop.published("alpha", "a1", deb("alpha", "1.0", files=TOOL))
    assert shop.state(shop.judged("beta", "b1", deb("beta", "2.0", "Replaces: alpha (<< 0.9)\n", TOOL))) is HELD


def test_a_directory_may_be_in_many_and_a_link_in_its_place_in_none(shop: Shop, deb: Debs) -> None:
    shop.published("alpha", "a1", deb("alpha", "1.0", files={"/usr/share/common/a": "a"}))
    assert shop.state(shop.judged("beta", "b1", deb("beta", "1.0", files={"/usr/share/common/b": "b"}))) is PASSED
    third = shop.judged("gamma", "g1", deb("gamma", "1.0", files={"/usr/share/common": "-> doc"}))
    assert "both have /usr/share/common" in shop.why(third)


def test_a_waiver_lets_one_out_and_the_other_stays(shop: Shop, deb: Debs) -> None:
    first = shop.release("alpha", "a1", deb("alpha", "1.0", files=TOOL))
    second = shop.release("beta", "b1", deb("beta", "2.0", files=TOOL))
    assert shop.publisher.turn() == 0
    assert shop.waive(first).state is PASSED
    assert shop.publisher.turn() == 1
    shop.upkeep()
    assert shop.publisher.turn() == 0
    assert [shop.state(one) for one in (first, second)] == [PUBLISHED, HELD]
    assert "alpha 1.0 (published in testing)" in shop.why(second)


def test_who_is_held_by_a_person_steps_aside(shop: Shop, deb: Debs) -> None:
    first = shop.release("alpha", "a1", deb("alpha", "1.0", files=TOOL))
    second = shop.release("beta", "b1", deb("beta", "2.0", files=TOOL))
    assert shop.publisher.turn() == 0
    releases.hold(shop.owner, second.id, "anna", "alpha goes first")
    shop.upkeep()
    assert shop.publisher.turn() == 1
    assert [shop.state(one) for one in (first, second)] == [PUBLISHED, HELD]


def test_who_does_not_demand_the_gate_is_not_held(shop: Shop, deb: Debs) -> None:
    shop.published("alpha", "a1", deb("alpha", "1.0", files=TOOL))
    second = shop.release("beta", "b1", deb("beta", "2.0", files=TOOL), gates=())
    assert shop.publisher.turn() == 1
    assert shop.state(second) is PUBLISHED


def test_rpms_may_have_the_very_same_file(shop: Shop, tmp_path: Path) -> None:
    for name, content in (("alpha", "same"), ("beta", "same"), ("gamma", "other")):
        (tmp_path / name).mkdir()
        release = shop.judged(
            name, f"{name}1", make_rpm(tmp_path / name, name, files={"/usr/share/data/file": content})
        )
        assert shop.publisher.turn() == (1 if content == "same" else 0)
    assert shop.state(release) is HELD
    told = conflicts_of(shop, release)
    assert {one.other for one in told} == {"alpha", "beta"}
    assert {(one.kind, one.subject) for one in told} == {(ConflictKind.FILE, "/usr/share/data/file")}


def conflicts_of(shop: Shop, release: Release) -> list[conflicts.Conflict]:
    with shop.owner.transaction() as cursor:
        found = conflicts.recorded(cursor, release.id, "testing")
    return [one for some in found.values() for one in some.conflicts]


# -- dependencies ------------------------------------------------------------------------------------------------------


def test_two_that_are_fine_alone_cannot_be_installed_together(shop: Shop, deb: Debs) -> None:
    shop.published("alpha", "a1", deb("libalpha", "1.0"))
    library = shop.release("alpha", "a2", deb("libalpha", "2.0"))
    program = shop.release("beta", "b1", deb("beta", "1.0", "Depends: libalpha (<< 2)\n"))
    assert shop.publisher.turn() == 0
    assert [shop.state(one) for one in (library, program)] == [HELD, HELD]
    assert (
        "beta 1.0 cannot be installed with alpha a2, which waits too: package beta-1.0.amd64 requires libalpha << 2,"
        " but none of the providers can be installed"
    ) in shop.why(program)
    assert "libalpha 2.0 cannot be installed with beta 1.0 (beta b1, which waits too)" in shop.why(library)


def test_who_needs_one_that_is_held_is_held_too(shop: Shop, deb: Debs) -> None:
    shop.published("alpha", "a1", deb("alpha", "1.0", files=TOOL))
    library = shop.release("beta", "b1", deb("libbeta", "1.0", files=TOOL))
    program = shop.release("gamma", "g1", deb("gamma", "1.0", "Depends: libbeta (>= 1)\n"))
    assert shop.publisher.turn() == 0
    assert [shop.state(one) for one in (library, program)] == [HELD, HELD]
    assert "gamma 1.0 cannot be installed: nothing provides libbeta >= 1" in shop.why(program)
    # And goes with it.
    assert shop.waive(library).state is PASSED
    shop.upkeep()
    assert shop.publisher.turn() == 2
    assert [shop.state(one) for one in (library, program)] == [PUBLISHED, PUBLISHED]


def test_a_library_that_breaks_what_is_published_is_held(shop: Shop, deb: Debs) -> None:
    shop.published("alpha", "a1", deb("libalpha", "1.0"))
    shop.published("beta", "b1", deb("beta", "1.0", "Depends: libalpha (<< 2)\n"))
    library = shop.judged("alpha", "a2", deb("libalpha", "2.0"))
    assert shop.state(library) is HELD
    assert "libalpha 2.0 cannot be installed with beta 1.0 (published in testing)" in shop.why(library)


def test_a_version_that_excludes_the_published_one_is_told_but_an_alternative_is_not(shop: Shop, deb: Debs) -> None:
    shop.published("alpha", "a1", deb("alpha", "1.0"))
    assert shop.state(shop.judged("gamma", "g1", deb("gamma", "1.0", "Conflicts: alpha\n"))) is PASSED
    newer = shop.judged("beta", "b1", deb("beta", "1.0", "Breaks: alpha (<< 2)\n"))
    assert "beta-1.0.amd64 and alpha-1.0.amd64 exclude each other" in shop.why(newer)


def test_a_dependency_that_a_newer_version_of_its_own_channel_lacks(shop: Shop, deb: Debs) -> None:
    shop.published("alpha", "a1", deb("alpha", "1.0", "Provides: engine\n"))
    shop.published("beta", "b1", deb("beta", "1.0", "Depends: engine\n"))
    without = shop.judged("alpha", "a2", deb("alpha", "2.0"))
    assert "alpha 2.0 cannot be installed with beta 1.0 (published in testing)" in shop.why(without)
    assert "engine" in shop.why(without)


def test_what_the_distribution_has_is_known_by_the_image_s_lists(shop: Shop, deb: Debs, tmp_path: Path) -> None:
    lists = tmp_path / "main_Packages"
    lists.write_text("Package: libc6\nVersion: 2.36\nArchitecture: amd64\n\n")
    shop.checker = Checker(shop.master, [shop.files], lambda image: nullcontext(Base("amd64", (lists,))))
    fine = shop.judged("alpha", "a1", deb("alpha", "1.0", "Depends: libc6 (>= 2.4)\n"))
    assert shop.state(fine) is PASSED
    assert shop.why(fine).startswith("passed")
    missing = shop.judged("beta", "b1", deb("beta", "1.0", "Depends: libc6 (>= 2.38), nonsense\n"))
    assert "beta 1.0 cannot be installed: nothing provides" in shop.why(missing)


# -- what cannot be looked at ------------------------------------------------------------------------------------------


def test_what_was_published_before_contents_were_known_is_read_when_it_is_needed(shop: Shop, deb: Debs) -> None:
    shop.published("alpha", "a1", deb("alpha", "1.0", files=TOOL))
    with shop.owner.transaction() as cursor:
        cursor.execute("DELETE FROM cleanroom.package")
    assert shop.state(shop.judged("beta", "b1", deb("beta", "2.0", files=TOOL))) is HELD


def test_a_published_file_that_is_gone_is_said_and_holds_nobody(shop: Shop, deb: Debs) -> None:
    gone = deb("alpha", "1.0", files=TOOL)
    digest = sha256(gone)
    shop.published("alpha", "a1", gone)
    with shop.owner.transaction() as cursor:
        cursor.execute("DELETE FROM cleanroom.package")
    shop.files.path(digest).unlink()
    second = shop.judged("beta", "b1", deb("beta", "2.0", files=TOOL))
    assert shop.state(second) is PASSED
    [gate] = [one for one in release_view(shop.owner, "beta", "b1")["gates"] if one["gate"] == "no-conflicts"]
    assert "1 published packages are not read yet" in gate["why"]


def test_a_package_that_cannot_be_read_is_told_by_its_name(shop: Shop, deb: Debs) -> None:
    bad = deb("alpha", "1.0")
    bad.write_bytes(bad.read_bytes()[:-40])
    release = shop.judged("alpha", "a1", bad)
    assert shop.state(release) is HELD
    assert "alpha_1.0_amd64.deb: it is no whole Debian package" in shop.why(release)


def test_a_solver_that_is_away_holds_nobody_at_the_verdict_and_lets_nobody_out(
    shop: Shop, deb: Debs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "PYTHON", "/bin/false")
    release = shop.release("alpha", "a1", deb("alpha", "1.0"))
    assert shop.state(release) is PASSED
    with pytest.raises(InfrastructureError, match="python3-solv"):
        shop.publisher.turn()
    assert shop.state(release) is PASSED
    monkeypatch.undo()
    assert shop.publisher.turn() == 1


def test_a_release_that_was_looked_at_is_not_looked_at_again(
    shop: Shop, deb: Debs, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = shop.judged("alpha", "a1", deb("alpha", "1.0"))
    monkeypatch.setattr(check, "PYTHON", "/bin/false")
    assert shop.publisher.turn() == 1
    assert shop.state(release) is PUBLISHED


def test_contents_are_kept_once_and_forgotten_when_nobody_needs_them(shop: Shop, deb: Debs) -> None:
    file = deb("alpha", "1.0", files=TOOL)
    digest = sha256(file)
    shop.published("alpha", "a1", file)
    known = packages.get(shop.owner, digest)
    assert known is not None
    assert (known.name, known.version, known.problem) == ("alpha", "1.0", None)
    paths = {one.path: str(one.type) for one in packages.files(shop.owner, digest)}
    assert (paths["/usr/bin/tool"], paths["/usr/bin"]) == ("file", "directory")
    packages.record(shop.owner, "0" * 64, packages.PackageContents("deb", "old", "1", "all", ""))
    with shop.owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.package SET read_at = now() - interval '2 days'")
    assert conflicts.prune(shop.master, 86_400) == 1
    assert packages.unknown(shop.owner, [digest, "0" * 64]) == ["0" * 64]


def test_the_union_has_everybody_s_newest_packages(shop: Shop, deb: Debs) -> None:
    shop.published("alpha", "a1", deb("alpha", "1.0"))
    shop.published("gamma", "g1", deb("gamma", "1.0", "Conflicts: beta\n"))
    shop.release("alpha", "a2", deb("alpha", "2.0"))
    release = shop.release("beta", "b1", deb("beta", "1.0"))
    wanted = union.union(shop.owner, shop.checker, PLACE, release.id, "deb")
    assert {one.file for one in wanted.members} == {"alpha_2.0_amd64.deb", "beta_1.0_amd64.deb"}
    assert wanted.left_out == ("gamma",)
    assert wanted.whole
    empty = union.union(shop.owner, shop.checker, PLACE, release.id, "rpm")
    with pytest.raises(InputError, match="nothing to be installed"):
        union.request(empty, attempt=1, artifacts=shop.home, output=shop.home)


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def site(server: Server, name: str, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEANROOM_STATE", str(shop.home))
    monkeypatch.setenv("CLEANROOM_SITE", str(shop.home))
    monkeypatch.setenv("CLEANROOM_DATABASE_URL", server.url(Role.OWNER, name))


@pytest.mark.usefixtures("site")
def test_the_command_line_says_by_its_exit_status_whether_there_are_conflicts(
    shop: Shop, deb: Debs, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.release("alpha", "a1", deb("alpha", "1.0", files=TOOL))
    shop.release("beta", "b1", deb("beta", "2.0", files=TOOL))
    shop.release("gamma", "g1", deb("gamma", "1.0"))
    assert cli.run(["release", "conflicts", "gamma", "g1", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "product": "gamma",
        "ref": "g1",
        "channel": "testing",
        "conflicts": 0,
        "targets": [
            {
                "target": "debian-12/deb",
                "packages": 3,
                "note": "the distribution's packages are not known here",
                "conflicts": [],
            }
        ],
    }
    assert cli.run(["release", "conflicts", "beta", "b1", "--format", "json"]) == 1
    [target] = json.loads(capsys.readouterr().out)["targets"]
    assert target["conflicts"] == [
        {
            "kind": "file",
            "package": "beta",
            "other": "alpha",
            "subject": "/usr/bin/tool",
            "why": "beta 2.0 and alpha 1.0 (alpha a1, which waits too) both have /usr/bin/tool",
            "with": {"product": "alpha", "ref": "a1"},
        }
    ]
    assert cli.run(["release", "conflicts", "beta", "b1"]) == 1
    assert "beta b1 has 1 conflicts in testing" in capsys.readouterr().out
    assert cli.run(["release", "conflicts", "beta", "b9"]) == 2
    # A look changes nothing.
    with shop.owner.transaction() as cursor:
        assert cursor.value("SELECT count(*) FROM cleanroom.conflict_check") == 0

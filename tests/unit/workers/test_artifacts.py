"""What may come out of a build: checked against real packages, and against ones that lie."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_packages import make_deb, make_rpm, make_source, sha256

from cleanroom_recipes.model import Builder
from cleanroom_workers import room
from cleanroom_workers.artifacts import BadArtifact, check


def make_changes(directory: Path, *files: Path, source: str = "tiny", version: str = "1.0-1") -> Path:
    sums = "".join(f" {sha256(file)} {file.stat().st_size} {file.name}\n" for file in files)
    changes = directory / f"{source}_{version}_amd64.changes"
    changes.write_text(f"Format: 1.8\nSource: {source}\nVersion: {version}\nChecksums-Sha256:\n{sums}Files:\n x\n")
    return changes


@pytest.fixture
def build(tmp_path: Path) -> list[Path]:
    """The files of a whole Debian build."""
    deb = make_deb(tmp_path, version="1.0-1")
    dsc = make_source(tmp_path)
    files = [deb, dsc, *tmp_path.glob("*.tar.*")]
    return [*files, make_changes(tmp_path, *files)]


def refused(files: list[Path], builder: Builder = Builder.DEB) -> str:
    with pytest.raises(BadArtifact) as caught:
        check(files, builder)
    return caught.value.message


def test_a_whole_debian_build_is_accepted(build: list[Path]) -> None:
    collection = check(build, Builder.DEB)
    assert collection.version == "1.0-1"
    found = {one.path.name: (one.format, one.package, one.architecture) for one in collection.files}
    assert found["tiny_1.0-1_amd64.deb"] == ("deb", "tiny", "amd64")
    assert found["tiny_1.0-1.dsc"][0] == "dsc"
    assert found["tiny_1.0.orig.tar.gz"][0] == "source"
    assert all(one.sha256 == sha256(one.path) for one in collection.files)


def test_an_rpm_build_is_accepted(tmp_path: Path) -> None:
    binary = make_rpm(tmp_path, version="1.0")
    source = make_rpm(tmp_path, version="1.1", source=True)
    collection = check([binary, source], Builder.RPM)
    assert {(one.format, one.architecture) for one in collection.files} == {("rpm", "noarch"), ("source-rpm", "src")}
    assert collection.version == "1.1-1"


def test_an_rpm_build_needs_its_source(tmp_path: Path) -> None:
    assert refused([make_rpm(tmp_path)], Builder.RPM) == "the build made 0 source packages instead of one"


@pytest.mark.parametrize("name", ["tiny_9.9-1_amd64.deb", "other_1.0-1_amd64.deb", "tiny_1.0-1_all.deb", "tiny.deb"])
def test_a_package_under_another_name_is_refused(build: list[Path], name: str) -> None:
    lie = build[0].rename(build[0].with_name(name))
    assert "is not what its name says" in refused([lie, *build[1:]])


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"!<arch>\njunk", b"\xed\xab\xee\xdb" + b"\0" * 200])
@pytest.mark.parametrize(("name", "builder"), [("a_1_all.deb", Builder.DEB), ("a-1-1.noarch.rpm", Builder.RPM)])
def test_what_is_no_package_is_refused(tmp_path: Path, content: bytes, name: str, builder: Builder) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    assert f"{name} is not" in refused([file], builder)


def test_an_rpm_under_another_name_is_refused(tmp_path: Path) -> None:
    lie = make_rpm(tmp_path).rename(tmp_path / "tiny-1.0-1.src.rpm")
    assert "by its content it is tiny-1.0-1.noarch.rpm" in refused([lie], Builder.RPM)


@pytest.mark.parametrize("name", ["x.sh", "x.html", "tiny_1.0-1_amd64.changes.asc", "x.rpm"])
def test_files_of_another_kind_are_refused(build: list[Path], name: str) -> None:
    other = build[0].with_name(name)
    other.write_text("x")
    assert "is nothing that a Debian build makes" in refused([*build, other])


def test_a_tarball_that_no_source_package_names_is_refused(build: list[Path]) -> None:
    stray = build[0].with_name("stray.tar.gz")
    shutil.copy(build[0].with_name("tiny_1.0.orig.tar.gz"), stray)
    assert refused([*build, stray]) == "stray.tar.gz belongs to no .dsc"


def test_a_tarball_that_is_none_is_refused(build: list[Path]) -> None:
    build[0].with_name("tiny_1.0.orig.tar.gz").write_text("#!/bin/sh")
    assert "it does not begin like one" in refused(build)


def test_a_file_that_changed_after_the_build_is_refused(build: list[Path]) -> None:
    deb = build[0]
    shutil.rmtree(deb.parent / "again", ignore_errors=True)
    (deb.parent / "again").mkdir()
    shutil.copy(make_deb(deb.parent / "again", version="1.0-1", greeting="other"), deb)
    assert "says another checksum of tiny_1.0-1_amd64.deb" in refused(build)


def test_a_file_that_is_listed_and_missing_is_refused(build: list[Path]) -> None:
    assert "which is not there" in refused(build[1:])


def test_one_build_has_one_changes_file(build: list[Path]) -> None:
    assert refused(build[:-1]) == "the build made 0 .changes files instead of one"


def test_a_changes_file_about_something_else_is_refused(build: list[Path]) -> None:
    lie = build[-1].rename(build[-1].with_name("other_1.0-1_amd64.changes"))
    assert "it is about tiny 1.0-1" in refused([*build[:-1], lie])


@pytest.mark.parametrize("name", ["-rf.deb", ".hidden", "a b.txt", "a\nb", "ä.txt", "x" * 201])
def test_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text("x")
    assert "name is not allowed" in refused([file], Builder.SCRIPT)


def test_links_and_directories_are_refused(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/etc/passwd")
    (tmp_path / "directory").mkdir()
    assert refused([link], Builder.SCRIPT) == "link is not a regular file"
    assert refused([tmp_path / "directory"], Builder.SCRIPT) == "directory is not a regular file"


def test_archives_must_begin_like_one(tmp_path: Path) -> None:
    file = tmp_path / "x.zip"
    file.write_text("MZ")
    assert "is not what its name says" in refused([file], Builder.SCRIPT)


def test_what_could_not_be_read_for_want_of_room_is_not_the_product_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dpkg-deb writes temporary files; whether it failed for that or for what it read, it does not say."""
    file = tmp_path / "tiny_1.0-1_amd64.deb"
    file.write_bytes(b"nothing of a package")
    assert "is not a Debian package" in refused([file])
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(room.DiskFull):
        check([file], Builder.DEB)

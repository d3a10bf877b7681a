import gzip
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tiny_packages import make_deb, make_rpm, make_source, sha256

from cleanroom_base.errors import InfrastructureError, InputError, Problem
from cleanroom_master.publish.apt import listed
from cleanroom_master.publish.package import Package, VersionConflict
from cleanroom_master.publish.repository import Repository, Unacceptable
from cleanroom_master.publish.signing import Signer


def add(repository: Repository, file: Path, *, channel: str = "testing", image: str = "debian-12") -> Package:
    family = "rpm" if file.suffix == ".rpm" else "deb"
    return repository.add_to_pool(file, sha256(file)).published_in(channel, f"{image}/{family}")


def publish(repository: Repository, number: int, *packages: Package) -> Path:
    directory = repository.build(number, packages)
    assert repository.verify(number) == []
    repository.switch(number)
    return directory


def index(directory: Path, place: str) -> str:
    """An index of the suite `testing`, unpacked as a client does it."""
    return gzip.decompress((directory / "apt/dists/testing" / f"{place}.gz").read_bytes()).decode()


def places(problems: list[Problem]) -> set[str]:
    return {problem.place for problem in problems}


def test_apt_and_yum_change_together_by_one_link(tmp_path: Path, repository: Repository):
    assert repository.current() is None
    directory = publish(repository, 1, add(repository, make_deb(tmp_path)), add(repository, make_rpm(tmp_path)))
    assert repository.current() == 1
    assert (repository.directory / "current").resolve() == directory
    repository.build(2, [add(repository, make_deb(tmp_path, version="2.0"))])
    assert repository.current() == 1
    repository.switch(2)
    assert repository.current() == 2


def test_an_empty_repository_can_be_shown(repository: Repository):
    directory = publish(repository, 1)
    assert "Nothing is published yet" in (directory / "index.html").read_text()


def test_the_listing_says_what_is_published(tmp_path: Path, repository: Repository):
    packages = [add(repository, make_deb(tmp_path)), add(repository, make_rpm(tmp_path))]
    publish(repository, 1, *packages)
    assert set(repository.read(1).packages) == set(packages)


def test_an_rpm_is_signed_on_its_way_in_and_only_once(tmp_path: Path, repository: Repository):
    file = make_rpm(tmp_path)
    built = sha256(file)
    first = repository.add_to_pool(file, built)
    assert first.built_sha256 == built
    assert first.sha256 != built
    assert repository.add_to_pool(file, built) == first
    assert sha256(file) == built


def test_content_that_is_not_the_recorded_one_is_refused(tmp_path: Path, repository: Repository):
    with pytest.raises(InputError, match="not the file that was recorded"):
        repository.add_to_pool(make_deb(tmp_path), "0" * 64)


def test_a_stored_artifact_is_taken_in_under_its_base_name(tmp_path: Path, repository: Repository):
    file = make_deb(tmp_path)
    checksum = sha256(file)
    stored = file.rename(tmp_path / checksum)
    assert repository.add_to_pool(stored, checksum, file="tiny_1.0_amd64.deb").name == "tiny"
    with pytest.raises(InputError, match="is really"):
        repository.add_to_pool(stored, checksum, file="tiny_1.1_amd64.deb")


@pytest.mark.parametrize("make", [make_deb, make_rpm])
def test_the_same_version_with_other_bytes_is_refused(
    tmp_path: Path, repository: Repository, make: Callable[..., Path]
):
    files = []
    for greeting in ("hello", "goodbye"):
        (tmp_path / greeting).mkdir()
        files.append(make(tmp_path / greeting, greeting=greeting))
    published, other = (add(repository, file) for file in files)
    publish(repository, 1, published)
    with pytest.raises(VersionConflict, match="with other bytes") as caught:
        repository.build(2, [published, other])
    assert "tiny 1.0" in str(caught.value)
    assert repository.current() == 1
    # For another image, or in another channel, it is no conflict.
    publish(repository, 2, published, add(repository, files[1], image="debian-13"))
    publish(repository, 3, published, add(repository, files[1], channel="snapshots"))


def test_packages_for_all_architectures_are_in_every_index(tmp_path: Path, repository: Repository):
    packages = [
        add(repository, make_deb(tmp_path, "data", architecture="all")),
        add(repository, make_deb(tmp_path, "program", architecture="riscv64")),
    ]
    directory = publish(repository, 1, *packages)
    for architecture in ("amd64", "arm64", "riscv64"):
        found = index(directory, f"debian-12/binary-{architecture}/Packages")
        assert "Package: data\n" in found
        assert ("Package: program\n" in found) == (architecture == "riscv64")
    assert "Architectures: amd64 arm64 riscv64\n" in (directory / "apt/dists/testing/Release").read_text()


def test_all_versions_are_kept(tmp_path: Path, repository: Repository):
    packages = [add(repository, make_deb(tmp_path, version=version)) for version in ("1.0", "1.1", "1:0.9~rc1")]
    directory = publish(repository, 1, *packages)
    assert index(directory, "debian-12/binary-amd64/Packages").count("Package: tiny\n") == 3


def test_a_source_package_needs_its_files(tmp_path: Path, repository: Repository):
    dsc = make_source(tmp_path)
    with pytest.raises(InputError, match=r"tiny_1\.0\.orig\.tar\.gz"):
        add(repository, dsc)
    for companion in ("tiny_1.0.orig.tar.gz", "tiny_1.0-1.debian.tar.xz"):
        repository.add_companion(tmp_path / companion, sha256(tmp_path / companion))
    package = add(repository, dsc)
    directory = publish(repository, 1, package)
    assert "Package: tiny\n" in index(directory, "debian-12/source/Sources")
    assert (directory / "apt" / package.path).with_name("tiny_1.0.orig.tar.gz").exists()


def test_what_did_not_change_is_not_written_or_signed_again(tmp_path: Path, repository: Repository):
    old = add(repository, make_deb(tmp_path), channel="stable")
    rpm = add(repository, make_rpm(tmp_path))
    first = publish(repository, 1, old, rpm)
    second = publish(repository, 2, old, rpm, add(repository, make_deb(tmp_path, version="2.0")))
    for place in (
        "apt/dists/stable/InRelease",
        "apt/dists/stable/debian-12/binary-amd64/Packages.gz",
        "yum/debian-12/testing/repodata/repomd.xml.asc",
    ):
        assert (first / place).samefile(second / place)


def test_the_indexes_of_earlier_generations_stay_fetchable(tmp_path: Path, repository: Repository):
    rpm = make_rpm(tmp_path)
    first = publish(repository, 1, add(repository, make_deb(tmp_path)), add(repository, rpm))
    publish(
        repository,
        2,
        add(repository, make_deb(tmp_path, version="2.0")),
        add(repository, make_rpm(tmp_path, version="2.0")),
    )
    third = publish(repository, 3, add(repository, make_deb(tmp_path, version="3.0")))
    files = [file for file in listed((first / "apt/dists/testing/Release").read_text()) if file.is_there]
    assert len(files) == 3
    for file in files:
        assert sha256(third / "apt/dists/testing" / file.by_hash) == file.sha256
    for file in (first / "yum/debian-12/testing/repodata").glob("*.xml.gz"):
        assert (third / "yum/debian-12/testing/repodata" / file.name).samefile(file)


def test_a_channel_that_was_emptied_stays(tmp_path: Path, repository: Repository):
    publish(repository, 1, add(repository, make_deb(tmp_path)), add(repository, make_rpm(tmp_path)))
    second = publish(repository, 2)
    assert index(second, "debian-12/binary-amd64/Packages") == ""
    assert (second / "yum/debian-12/testing/repodata/repomd.xml").exists()


def test_a_generation_is_later_than_the_one_before_in_whole_seconds(repository: Repository):
    numbers = (1, 2, 3, 4, 5, 6)
    for number in numbers:
        repository.build(number, [])
        repository.switch(number)
    made = [repository.read(number) for number in numbers]
    moments = [one.at for one in made]
    assert moments == sorted(set(moments))
    assert all(moment.microsecond == 0 for moment in moments)
    # What is signed says no time of the future, and never an earlier one than before.
    dates = [one.dated for one in made]
    assert dates == sorted(dates)
    assert dates[-1] <= datetime.now(UTC)


def test_a_generation_that_was_shown_is_never_built_again(repository: Repository):
    publish(repository, 2)
    for number in (1, 2):
        with pytest.raises(InputError, match="cannot follow generation 2"):
            repository.build(number, [])


@pytest.mark.parametrize("word", ["", "..", "a/b", "../testing", "test ing", "-testing", "testing\n"])
def test_a_channel_that_is_no_word_is_refused(tmp_path: Path, repository: Repository, word: str):
    added = repository.inspect(make_deb(tmp_path))
    with pytest.raises(InputError, match="cannot be published under"):
        added.published_in(word, "debian-12/deb")
    with pytest.raises(InputError, match="cannot be published under"):
        added.published_in("testing", word if "/" not in word else "../deb")


def test_what_failed_to_be_built_is_not_left_behind(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
):
    publish(repository, 1)
    package = add(repository, make_deb(tmp_path))
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "gpg").symlink_to("/bin/false")
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        with pytest.raises(InfrastructureError, match="gpg ended with status 1"):
            repository.build(2, [package])
    assert [path.name for path in (repository.directory / "generations").iterdir()] == ["1"]
    publish(repository, 2, package)


def test_only_a_generation_that_exists_can_be_shown(repository: Repository):
    publish(repository, 1)
    with pytest.raises(InfrastructureError, match="does not exist"):
        repository.switch(2)
    assert repository.current() == 1


def test_everything_can_be_read_by_a_web_server_of_another_user(tmp_path: Path, repository: Repository):
    before = os.umask(0o077)
    try:
        publish(repository, 1, add(repository, make_deb(tmp_path)), add(repository, make_rpm(tmp_path)))
    finally:
        os.umask(before)
    for part in ("files", "generations"):
        for path in [repository.directory / part, *(repository.directory / part).rglob("*")]:
            mode = path.stat().st_mode & 0o777
            assert mode == (0o755 if path.is_dir() else 0o644), path


# --- verification ---


def test_verification_names_a_package_whose_bytes_changed(tmp_path: Path, repository: Repository):
    package = add(repository, make_deb(tmp_path))
    directory = publish(repository, 1, package)
    (directory / "apt" / package.path).write_bytes(b"something else")
    assert f"apt/{package.path}" in places(repository.verify(1))


def test_verification_names_a_package_that_is_missing(tmp_path: Path, repository: Repository):
    package = add(repository, make_rpm(tmp_path))
    directory = publish(repository, 1, package)
    (directory / "yum/debian-12/testing" / package.path).unlink()
    assert f"yum/debian-12/testing/{package.path}" in places(repository.verify(1))


def test_verification_notices_every_file_that_was_touched(tmp_path: Path, repository: Repository):
    directory = publish(repository, 1, add(repository, make_deb(tmp_path)), add(repository, make_rpm(tmp_path)))
    for place in (
        "apt/dists/testing/InRelease",
        "apt/dists/testing/Release",
        "apt/dists/testing/Release.gpg",
        "apt/dists/testing/debian-12/binary-amd64/Packages.gz",
        "apt/dists/testing/debian-12/source/Sources.gz",
        "yum/debian-12/testing/repodata/repomd.xml",
        "yum/debian-12/testing/repodata/repomd.xml.asc",
        "yum/debian-12/testing/mirrorlist",
        "keys/cleanroom.asc",
        "generation.json",
        "index.html",
        "style.css",
    ):
        file = directory / place
        content = file.read_bytes()
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        assert repository.verify(1) != [], f"{place} was edited"
        file.unlink()
        assert repository.verify(1) != [], f"{place} was removed"
        file.write_bytes(content)
    for index in (directory / "apt").rglob("by-hash/SHA256/*"):
        index.unlink()
        break
    assert repository.verify(1) != []


def test_versions_with_every_allowed_sign(tmp_path: Path, repository: Repository):
    packages = [
        add(repository, make_deb(tmp_path, "lib+tiny-1.0", "1:2.0~rc1+dfsg.1-3~bpo12+1")),
        add(repository, make_rpm(tmp_path, version="2.0~rc1+git^5")),
    ]
    publish(repository, 1, *packages)


def test_verification_since_a_generation_still_sees_what_is_new(tmp_path: Path, repository: Repository):
    old = add(repository, make_deb(tmp_path))
    publish(repository, 1, old)
    new = add(repository, make_deb(tmp_path, version="2.0"))
    directory = repository.build(2, [old, new])
    assert repository.verify(2, since=1) == []
    (directory / "apt" / new.path).write_bytes(b"something else")
    assert places(repository.verify(2, since=1)) == {f"apt/{new.path}"}


def test_an_rpm_that_was_not_signed_does_not_pass(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
):
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "rpmsign").symlink_to("/bin/true")
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        package = add(repository, make_rpm(tmp_path))
    repository.build(1, [package])
    (problem,) = repository.verify(1)
    assert problem.place == "yum"


def test_what_clients_would_refuse_is_refused_while_it_is_written(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
):
    old = add(repository, make_deb(tmp_path))
    publish(repository, 1, old)
    good = add(repository, make_deb(tmp_path, version="2.0"))
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "rpmsign").symlink_to("/bin/true")
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        unsigned = add(repository, make_rpm(tmp_path))
    # dpkg-deb takes it, and apt could read nothing of the whole index.
    unreadable = add(repository, make_deb(tmp_path, "bad", more_control="Depends: libc6 (>=\n"))
    for bad, place in ((unsigned, "yum"), (unreadable, "apt")):
        with pytest.raises(Unacceptable) as refused:
            repository.change(2, start=1, added=[good, bad], removed=[])
        assert places(refused.value.problems) == {place}
        assert [path.name for path in (repository.directory / "generations").iterdir()] == ["1"]
    repository.change(2, start=1, added=[good], removed=[])
    assert repository.verify(2) == []


def test_each_state_of_a_yum_repository_has_an_address_that_stays(tmp_path: Path, repository: Repository):
    first = publish(repository, 1, add(repository, make_rpm(tmp_path)))
    place = "yum/debian-12/testing"
    lines = (first / place / "mirrorlist").read_text().splitlines()
    assert lines[1] == f"http://repository.example/{place}/"
    state = lines[0].removeprefix(f"http://repository.example/{place}/").rstrip("/")
    second = publish(repository, 2, *repository.read(1).packages, add(repository, make_rpm(tmp_path, version="2.0")))
    assert lines[0] not in (second / place / "mirrorlist").read_text()
    for file in (first / place / "repodata").iterdir():
        assert (second / place / state / "repodata" / file.name).samefile(file)
    assert (second / place / state / "pool").samefile(second / place / "pool")
    # It stays for those that began with it; once no generation has it, it goes.
    needed = repository.read(2).packages
    repository.remove_unneeded(needed, set(), older_than=timedelta())
    assert (second / place / state).is_dir()
    repository.remove_generations(keep={2})
    repository.remove_unneeded(needed, set(), older_than=timedelta())
    assert not (second / place / state).exists()
    assert repository.verify(2) == []


def test_a_repository_signed_by_another_key_does_not_pass(tmp_path: Path, runtime: Path, repository: Repository):
    with Signer(tmp_path / "other", runtime, user_id="Someone else") as other:
        forged = Repository(repository.directory, other, origin="Test", url="http://repository.example")
        forged.build(1, [add(forged, make_deb(tmp_path)), add(forged, make_rpm(tmp_path))])
    assert {
        "keys/cleanroom.asc",
        "apt/dists/testing/InRelease",
        "apt/dists/testing/Release.gpg",
        "yum/debian-12/testing/repodata/repomd.xml.asc",
        "apt",
        "generation.json",
        "yum",
    } == places(repository.verify(1))

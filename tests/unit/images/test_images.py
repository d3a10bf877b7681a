"""Images: what is described is checked, what is built is sealed, and what was changed is noticed."""

from __future__ import annotations

import json
import os
import signal
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from root_trees import complete

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.run import run, start, wait
from cleanroom_images import description, emulation, manifest
from cleanroom_images.build import build
from cleanroom_images.catalogue import Catalogue
from cleanroom_images.importing import import_image
from cleanroom_images.store import ImageChanged, ImageInUse, ImageMissing


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site with one image of its own, whose mmdebstrap is a program that packs a small tree."""
    folder = tmp_path / "site/guest_images/tiny"
    folder.mkdir(parents=True)
    (folder / "image.toml").write_text('distribution = "debian"\nsuite = "bookworm"\n', encoding="utf-8")
    return tmp_path / "site"


@pytest.fixture
def mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree that the fake mmdebstrap packs."""
    programs = tmp_path / "programs"
    programs.mkdir()
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "boot").mkdir()
    (tree / "etc/hostname").write_text("localhost\n", encoding="utf-8")
    (tree / "boot/vmlinuz-1").write_bytes(b"kernel")
    (tree / "boot/initrd.img-1").write_bytes(b"initrd")
    (tree / "link").symlink_to("etc")
    fake = programs / "mmdebstrap"
    fake.write_text(
        f'#!/bin/sh\necho "I: packing"\nfor last in "$@"; do :; done\nexec tar -C {tree} -cf "$last" .\n',
        encoding="utf-8",
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return tree


@pytest.fixture
def catalogue(tmp_path: Path, site: Path) -> Catalogue:
    return Catalogue(tmp_path / "state", site)


def test_what_comes_with_cleanroom_is_described(catalogue: Catalogue) -> None:
    names = [entry.name for entry in catalogue.entries()]
    assert {"debian-12", "debian-13", "tiny"} <= set(names)
    described = catalogue.description("debian-13")
    assert (described.suite, described.formats) == ("trixie", ("deb", "rpm", "script"))
    assert "{" not in "".join(described.packages)
    assert described.provision is not None


def test_all_that_is_wrong_with_a_description_is_told_at_once(tmp_path: Path, site: Path) -> None:
    folder = site / "guest_images/bad"
    folder.mkdir()
    (folder / "image.toml").write_text(
        'suite = "x; reboot"\nformats = ["deb", "tar"]\npackages = ["-o"]\nprovision = "none"\nother = 1\n',
        encoding="utf-8",
    )
    with pytest.raises(InputError) as caught:
        Catalogue(tmp_path / "state", site).entry("bad")
    places = {problem.place for problem in caught.value.problems}
    assert places == {"distribution", "suite", "formats[1]", "packages[0]", "provision", "other"}


def further(site: Path, content: str) -> None:
    (site / "guest_images/tiny/image.toml").write_text(
        f'distribution = "debian"\nsuite = "trixie"\n{content}', encoding="utf-8"
    )


def test_a_description_serves_further_architectures(catalogue: Catalogue, site: Path) -> None:
    one, *others = (name for name in description.ARCHITECTURES if name != description.native_architecture())
    content = f"further_architectures = {[one, description.native_architecture()]}\n"
    renamed = f'packages = ["linux-{{architecture}}", "other"]\n[renamed.{one}]\nlinux-{one} = "kernel"\n'
    further(site, content + renamed)
    assert [name for name in catalogue.names() if name.startswith("tiny")] == ["tiny", f"tiny-{one}"]
    found = catalogue.description(f"tiny-{one}")
    assert (found.name, found.architecture, found.packages) == (f"tiny-{one}", one, ("kernel", "other"))
    native = catalogue.description("tiny")
    assert native.packages == (f"linux-{description.native_architecture()}", "other")
    assert catalogue.variant("tiny", one) == catalogue.variant(f"tiny-{one}", one) == f"tiny-{one}"
    assert catalogue.variant("tiny", description.native_architecture()) == "tiny"
    for architecture in (others[0], "m68k", "../x"):
        with pytest.raises(InputError, match="not described for"):
            catalogue.variant("tiny", architecture)


def test_what_is_wrong_about_architectures_is_told(catalogue: Catalogue, site: Path) -> None:
    further(site, 'further_architectures = ["m68k"]\n[renamed]\nm68k = {}\n')
    with pytest.raises(InputError) as caught:
        catalogue.description("tiny")
    assert [problem.place for problem in caught.value.problems] == ["further_architectures[0]", "renamed"]
    further(site, "[renamed]\narm64 = { linux = 1 }\n")
    with pytest.raises(InputError, match=r"renamed\.arm64: must be"):
        catalogue.description("tiny")


def test_programs_of_another_architecture_are_made_known_or_it_is_said(tmp_path: Path, mmdebstrap: Path) -> None:
    registered, told = tmp_path / "registered", tmp_path / "told"
    registered.mkdir()
    program = Path(os.environ["PATH"].split(":")[0]) / "update-binfmts"
    program.write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    program.chmod(0o755)
    with pytest.raises(InfrastructureError, match="cannot run programs for s390x"):
        emulation.ensure("s390x", registered)
    assert told.read_text() == "--enable qemu-s390x\n"
    program.write_text(f'#!/bin/sh\ntouch {registered}/"$2"\n')
    emulation.ensure("s390x", registered)
    # What the kernel knows, and what is this host's own, needs nobody to be told.
    program.write_text("#!/bin/sh\nexit 1\n")
    emulation.ensure("s390x", registered)
    emulation.ensure(description.native_architecture(), tmp_path / "nothing")


def test_a_built_image_has_all_its_parts(catalogue: Catalogue, mmdebstrap: Path) -> None:
    told: list[str] = []
    image = build(catalogue, "tiny", observer=told.append)
    assert image == catalogue.image("tiny") == catalogue.verify("tiny")
    assert image.tree is not None
    assert image.disk is not None
    assert image.kernel is not None
    assert (image.tree / "etc/hostname").read_text(encoding="utf-8") == "localhost\n"
    assert image.kernel.read_bytes() == b"kernel"
    assert manifest.file_digest(image.manifest) == image.digest
    run(["e2fsck", "-f", "-n", image.disk], timeout=60)
    assert "packing" in told
    assert sorted(path.name for path in image.directory.parent.glob(".new-*")) == []


def test_the_digest_follows_the_content_and_nothing_else(catalogue: Catalogue, mmdebstrap: Path) -> None:
    first = build(catalogue, "tiny")
    os.utime(mmdebstrap / "etc/hostname", (1, 1))
    assert build(catalogue, "tiny").digest == first.digest
    (mmdebstrap / "etc/hostname").chmod(0o600)
    second = build(catalogue, "tiny")
    assert second.digest != first.digest
    assert not first.directory.exists()


def test_guests_keep_the_image_that_they_run_from(catalogue: Catalogue, mmdebstrap: Path) -> None:
    first = build(catalogue, "tiny")
    catalogue.store.claim(first, "guest")
    (mmdebstrap / "new").touch()
    second = build(catalogue, "tiny")
    assert catalogue.image("tiny").digest == second.digest
    assert catalogue.store.image("tiny", first.digest).tree == first.tree
    with pytest.raises(ImageInUse):
        catalogue.remove("tiny")
    with pytest.raises(ImageMissing, match=f"the image tiny of digest {'1' * 64} is not there"):
        Catalogue(catalogue.store.directory.parent, chosen={"tiny": "1" * 64}).image("tiny")
    catalogue.store.release("tiny", "guest")
    catalogue.remove("tiny")
    with pytest.raises(ImageMissing, match="cleanroom image build tiny"):
        catalogue.image("tiny")


@pytest.mark.parametrize("part", ["tree/etc/hostname", "disk.ext4", "kernel", "initrd", "manifest"])
def test_what_was_changed_is_noticed(catalogue: Catalogue, mmdebstrap: Path, part: str) -> None:
    image = build(catalogue, "tiny")
    catalogue.store.check(image)
    with (image.directory / part).open("r+b") as file:
        file.write(b"X")
    with pytest.raises(ImageChanged):
        catalogue.store.check(image)
    with pytest.raises(ImageChanged):
        catalogue.verify("tiny")


def test_what_changed_without_its_time_is_refused_once_it_was_seen(catalogue: Catalogue, mmdebstrap: Path) -> None:
    image = build(catalogue, "tiny")
    seal = image.directory.with_name(f"{image.digest}.json")
    # As on a disk that lies: nothing is newer than the seal.
    seal.write_text(json.dumps({**json.loads(seal.read_text()), "sealed_at": 4e9}), encoding="utf-8")
    with (image.directory / "kernel").open("r+b") as file:
        file.write(b"X")
    catalogue.store.check(image)
    with pytest.raises(ImageChanged, match="kernel has other content"):
        catalogue.verify("tiny")
    with pytest.raises(ImageChanged):
        catalogue.store.check(image)
    with (image.directory / "kernel").open("r+b") as file:
        file.write(b"k")
    catalogue.store.check(image)
    assert json.loads(seal.read_text())["sealed_at"] > 0


def test_what_was_touched_but_not_changed_is_no_change(catalogue: Catalogue, mmdebstrap: Path) -> None:
    image = build(catalogue, "tiny")
    (image.directory / "kernel").touch()
    catalogue.store.check(image)


def test_a_seal_that_cannot_be_read_is_a_change(catalogue: Catalogue, mmdebstrap: Path) -> None:
    image = build(catalogue, "tiny")
    seal = image.directory.with_name(f"{image.digest}.json")
    seal.write_text(json.dumps({"name": "tiny"}), encoding="utf-8")
    with pytest.raises(ImageChanged):
        catalogue.image("tiny")
    assert build(catalogue, "tiny").digest == image.digest


def test_what_a_killed_builder_left_is_cleared_away(catalogue: Catalogue, mmdebstrap: Path) -> None:
    stray = catalogue.store.directory / "tiny/.new-1"
    stray.mkdir(parents=True)
    (stray / "half").touch()
    build(catalogue, "tiny")
    assert not stray.exists()


def eventually(happened: Callable[[], bool]) -> bool:
    """Whether something happens before one must give up."""
    deadline = time.monotonic() + 240.0
    while not (done := happened()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return done


def test_what_mounts_while_an_image_is_built_mounts_for_itself(
    catalogue: Catalogue, mmdebstrap: Path, tmp_path: Path
) -> None:
    fake = tmp_path / "programs/mmdebstrap"
    fake.write_text(fake.read_text().replace("exec", f"readlink /proc/self/ns/mnt > {tmp_path}/seen\nexec"))
    build(catalogue, "tiny")
    own = str(Path("/proc/self/ns/mnt").readlink())
    assert ((tmp_path / "seen").read_text().strip() != own) == (os.geteuid() == 0)


def test_a_build_that_is_ended_ends_all_that_it_started(
    catalogue: Catalogue, site: Path, mmdebstrap: Path, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    fake = tmp_path / "programs/mmdebstrap"
    fake.write_text(f"#!/bin/sh\necho $$ > {started}.new\nmv {started}.new {started}\nexec sleep 60\n")
    program = "from cleanroom_master.cli import main; main(['image', 'build', 'tiny'])"
    environment = {"CLEANROOM_STATE": str(tmp_path / "state"), "CLEANROOM_SITE": str(site)}
    building = start([sys.executable, "-c", program], environment=environment)
    assert eventually(started.exists)
    building.terminate()
    assert wait(building, 60.0)
    assert building.returncode == 128 + signal.SIGTERM
    packing = Path("/proc") / started.read_text().strip()
    assert eventually(lambda: not packing.exists())
    assert not list(catalogue.store.directory.glob("tiny/.new-*"))


def test_unknown_names_are_refused(catalogue: Catalogue) -> None:
    for name in ("nothing", "../tiny", ""):
        with pytest.raises(InputError):
            catalogue.image(name)


def test_a_tar_is_imported_without_its_device_files(catalogue: Catalogue, tmp_path: Path, mmdebstrap: Path) -> None:
    complete(mmdebstrap)
    tar = tmp_path / "root.tar"
    with tarfile.open(tar, "w") as archive:
        device = tarfile.TarInfo("./dev/sda")
        device.type = tarfile.BLKTYPE
        archive.addfile(device)
        archive.add(mmdebstrap, ".")
    image = import_image(catalogue, "rocky-9", tar)
    assert (image.distribution, image.suite, image.formats) == ("rocky", "9.4", ("rpm", "script"))
    assert image.tree is not None
    assert not (image.tree / "dev/sda").exists()
    assert catalogue.image("rocky-9") == image
    catalogue.remove("rocky-9")
    with pytest.raises(InputError):
        catalogue.image("rocky-9")


def test_what_cannot_be_imported_is_refused(catalogue: Catalogue, tmp_path: Path, mmdebstrap: Path) -> None:
    tar = tmp_path / "root.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(mmdebstrap, ".")
    for name, file in (("../x", tar), ("tiny", tar), ("other", tmp_path / "none"), ("other", tar)):
        with pytest.raises(InputError):
            import_image(catalogue, name, file)
    assert not (catalogue.store.directory / "other/current").exists()

"""What is missing in a root file system that was made for something else, seen without leaving it."""

from __future__ import annotations

from pathlib import Path

import pytest
from root_trees import complete

from cleanroom_base.errors import InputError
from cleanroom_base.run import run
from cleanroom_images.catalogue import Catalogue
from cleanroom_images.description import native_architecture
from cleanroom_images.importing import import_image
from cleanroom_images.probing import architecture, boot_files, find, missing


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return complete(tmp_path / "tree")


def boot(tree: Path, *names: str) -> None:
    (tree / "boot").mkdir(exist_ok=True)
    for name in names:
        (tree / "boot" / name).write_text(name)


def test_a_complete_one_without_a_kernel_is_for_containers(tree: Path) -> None:
    assert [(lack.what, lack.needed) for lack in missing(tree)] == [("a kernel with its initrd in /boot", False)]
    boot(tree, "vmlinuz-6.1", "initrd.img-6.1")
    assert [lack.what for lack in missing(tree)] == ["systemd-networkd", "perl"]
    for name in ("usr/lib/systemd/systemd-networkd", "usr/bin/perl"):
        (tree / name).touch()
    assert missing(tree) == []


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("usr/sbin/sshd", ["an SSH server"]),
        ("usr/lib/systemd/systemd", ["systemd", "/sbin/init"]),
        ("usr/sbin/init", ["/sbin/init"]),
        ("usr/bin/tar", ["tar"]),
        ("usr/sbin/useradd", ["useradd"]),
        ("bin", ["a shell"]),
    ],
)
def test_what_is_needed_is_named(tree: Path, file: str, what: list[str]) -> None:
    (tree / file).unlink()
    assert [lack.what for lack in missing(tree) if lack.needed] == what


def test_the_newest_kernel_with_an_initrd_is_taken(tree: Path) -> None:
    assert boot_files(tree) is None
    boot(tree, "vmlinuz-6.9.1", "initrd.img-6.9.1", "vmlinuz-6.10.1", "initrd.img-6.10.1", "vmlinuz-6.11.1")
    found = boot_files(tree)
    assert found is not None
    assert [file.name for file in found] == ["vmlinuz-6.10.1", "initrd.img-6.10.1"]


def test_a_kernel_of_fedora_and_its_like_is_found(tree: Path) -> None:
    boot(
        tree, "vmlinuz-0-rescue-1", "initramfs-0-rescue-1.img", "vmlinuz-5.14.0-427.el9", "initramfs-5.14.0-427.el9.img"
    )
    found = boot_files(tree)
    assert found is not None
    assert [file.name for file in found] == ["vmlinuz-5.14.0-427.el9", "initramfs-5.14.0-427.el9.img"]


def test_links_lead_nowhere_outside(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    for name, target in (("up", "../outside"), ("far", "../../../../etc/passwd"), ("host", "/etc/passwd")):
        (tree / name).symlink_to(target)
        assert find(tree, name) is None
    (tree / "round").symlink_to("round")
    assert find(tree, "round") is None
    assert find(tree, "sbin/../sbin/init") == tree / "usr/lib/systemd/systemd"
    boot(tree, "initrd.img-1")
    (tree / "boot/vmlinuz-1").symlink_to("/etc/passwd")
    assert boot_files(tree) is None


@pytest.mark.parametrize(
    ("number", "name"),
    [(b"\xb7\x00", "arm64"), (b"\x3e\x00", "amd64"), (b"\xf3\x00", "riscv64"), (b"\x08\x00", "machine-8")],
)
def test_the_architecture_is_that_of_its_programs(tree: Path, number: bytes, name: str) -> None:
    assert architecture(tree) == native_architecture()
    (tree / "usr/lib/systemd/systemd").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(11) + number)
    assert architecture(tree) == name


def test_an_import_tells_all_that_is_missing(tree: Path, tmp_path: Path) -> None:
    tar, catalogue, told = tmp_path / "root.tar", Catalogue(tmp_path / "state"), list[str]()
    run(["tar", "-C", tree, "-cf", tar, "."], timeout=60)
    image = import_image(catalogue, "own", tar, observer=told.append)
    assert (image.distribution, image.kernel) == ("rocky", None)
    assert "missing: a kernel with its initrd in /boot: its guests can only be containers" in told
    (tree / "usr/sbin/sshd").unlink()
    (tree / "usr/bin/tar").unlink()
    run(["tar", "-C", tree, "-cf", tar, "."], timeout=60)
    with pytest.raises(InputError) as caught:
        import_image(catalogue, "other", tar)
    assert [problem.place for problem in caught.value.problems] == ["an SSH server", "tar"]
    assert catalogue.store.names() == ["own"]


def test_disks_that_a_guest_does_not_have_are_not_mounted(tree: Path, tmp_path: Path) -> None:
    (tree / "etc/fstab").write_text("# disks\nUUID=1234 /boot xfs defaults 0 0\n")
    tar, told = tmp_path / "root.tar", list[str]()
    run(["tar", "-C", tree, "-cf", tar, "."], timeout=60)
    image = import_image(Catalogue(tmp_path / "state"), "own", tar, observer=told.append)
    assert image.tree is not None
    assert (image.tree / "etc/fstab").read_text().split()[:2] == ["/dev/vda", "/"]
    assert any("/etc/fstab" in line for line in told)

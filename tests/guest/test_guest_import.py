"""A disk of the user's own becomes an image."""

from __future__ import annotations

from pathlib import Path

import pytest
from root_trees import complete

from cleanroom_base.errors import InputError
from cleanroom_base.run import run
from cleanroom_images.catalogue import Catalogue
from cleanroom_images.importing import import_image


def test_the_largest_partition_of_a_disk_is_imported(tmp_path: Path) -> None:
    tree = complete(tmp_path / "tree", release="ID=debian\nVERSION_CODENAME=bookworm\n")
    part = tmp_path / "part"
    with part.open("wb") as file:
        file.truncate(30 << 20)
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, part], timeout=60)
    # A disk may also be one file system without a table of partitions.
    assert import_image(Catalogue(tmp_path / "state"), "whole", part).distribution == "debian"
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(40 << 20)
    run(["sfdisk", "--quiet", disk], stdin=b"label: gpt\n2048,4096\n8192,61440\n", timeout=60)
    run(["dd", f"if={part}", f"of={disk}", "bs=512", "seek=8192", "conv=notrunc", "status=none"], timeout=60)
    qcow2 = tmp_path / "disk.qcow2"
    run(["qemu-img", "convert", "-O", "qcow2", disk, qcow2], timeout=60)
    image = import_image(Catalogue(tmp_path / "state"), "own", qcow2)
    assert (image.distribution, image.suite) == ("debian", "bookworm")
    assert image.tree is not None
    assert (image.tree / "usr/lib/os-release").is_file()
    assert not list(image.directory.glob(".*"))


# The beginning of an encrypted partition. Source: the LUKS1 On-Disk Format Specification.
@pytest.mark.parametrize(("content", "told"), [(b"LUKS\xba\xbe\0\1", "encrypted data"), (b"", "no file system")])
def test_a_disk_without_a_plain_file_system_says_what_it_holds(tmp_path: Path, content: bytes, told: str) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1 << 20) + content.ljust(7 << 20, b"\0"))
    run(["sfdisk", "--quiet", disk], stdin=b"label: dos\n2048\n", timeout=60)
    with pytest.raises(InputError, match=told):
        import_image(Catalogue(tmp_path / "state"), "own", disk)
    assert not list((tmp_path / "state").rglob(".new-*"))


def test_a_disk_that_refers_to_another_file_is_refused(tmp_path: Path) -> None:
    secret, disk = tmp_path / "secret", tmp_path / "disk.qcow2"
    secret.write_bytes(b"of this machine".ljust(1 << 20))
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, disk], timeout=60)
    with pytest.raises(InputError, match="refers to another file"):
        import_image(Catalogue(tmp_path / "state"), "own", disk)

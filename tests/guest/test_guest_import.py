"""A disk of the user's own becomes an image."""

from __future__ import annotations

from pathlib import Path

from cleanroom_base.run import run
from cleanroom_images.catalogue import Catalogue
from cleanroom_images.importing import import_image


def test_the_largest_partition_of_a_disk_is_imported(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "usr/lib/os-release").write_text("ID=debian\nVERSION_CODENAME=bookworm\n", encoding="utf-8")
    part = tmp_path / "part"
    with part.open("wb") as file:
        file.truncate(30 << 20)
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, part], timeout=60)
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

"""Take in an image of the user's own: a tar of a root file system, or a disk (qcow2, raw and what else qemu-img
reads) whose largest partition holds one.

Whatever it was, it becomes what a built image is: a tree and, where it holds a kernel, a disk, of one content.
It must hold systemd and an SSH server for guests to be driven.
"""

from __future__ import annotations

import contextlib
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cleanroom_base.errors import InputError
from cleanroom_base.run import run
from cleanroom_images import description
from cleanroom_images.build import pack, unpack_tar
from cleanroom_images.catalogue import Catalogue
from cleanroom_images.description import Description
from cleanroom_images.store import Image

_TIMEOUT = 1800.0
_SECTOR = 512
# Words of os-release(5) by which distributions tell that they are like an older one.
_RPM_LIKE = {"fedora", "rhel", "centos", "rocky", "almalinux", "suse", "opensuse"}


def import_image(
    catalogue: Catalogue, name: str, file: Path, *, observer: Callable[[str], None] | None = None
) -> Image:
    """Import `file` as the image `name` and put it in place.

    Raises InputError when it is not what can be imported, CommandError when a program fails on it.
    """
    if not description.NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name of an image: small letters, digits, '.', '+', '-'")
    if catalogue.described(name):
        raise InputError(f"the image {name} is described and can be built", hint="import under another name")
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    tell = observer or (lambda _: None)
    with catalogue.store.building(name) as directory:
        tree = directory / "tree"
        tree.mkdir()
        if tarfile.is_tarfile(file):
            unpack_tar(file, tree, tell)
        else:
            _copy_from_disk(file, directory, tree, tell)
        image = pack(_described(name, tree), directory, tell)
        catalogue.store.switch(catalogue.store.seal(image, directory))
    return catalogue.image(name)


def _described(name: str, tree: Path) -> Description:
    """What the root file system says about itself."""
    release = _release(tree)
    like = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    return Description(
        name=name,
        folder=tree,
        description="imported",
        distribution=release.get("ID", "unknown"),
        suite=release.get("VERSION_CODENAME") or release.get("VERSION_ID", "unknown"),
        components=(),
        architecture=description.native_architecture(),
        formats=("rpm", "script") if like & _RPM_LIKE else description.FORMATS,
        packages=(),
        provision=None,
    )


def _release(tree: Path) -> dict[str, str]:
    """os-release(5) of a tree, read without following a link out of it."""
    for place in ("usr/lib/os-release", "etc/os-release"):
        file = tree / place
        inside = not any(part.is_symlink() for part in (file, *list(file.parents)[: place.count("/")]))
        if inside and file.is_file():
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            pairs = (line.split("=", 1) for line in lines if "=" in line)
            return {key: value.strip("\"'") for key, value in pairs}
    raise InputError("this holds no root file system: there is no /usr/lib/os-release in it")


def _copy_from_disk(file: Path, directory: Path, tree: Path, tell: Callable[[str], None]) -> None:
    raw = directory / ".disk.raw"
    tell("converting the disk")
    run(["qemu-img", "convert", "-O", "raw", file, raw], timeout=_TIMEOUT)
    tell("copying its root file system")
    with _mounted(raw, directory / ".mounted") as root:
        # Device files are made by whoever starts a guest.
        pattern = ["--exclude=./dev/*", "--xattrs", "--xattrs-include=*", "--numeric-owner"]
        tar = directory / ".root.tar"
        run(["tar", "--create", "--file", tar, *pattern, "--directory", root, "."], timeout=_TIMEOUT)
    raw.unlink()
    unpack_tar(tar, tree, tell)
    tar.unlink()


@contextlib.contextmanager
def _mounted(raw: Path, place: Path) -> Iterator[Path]:
    start, size = _largest_partition(raw)
    place.mkdir()
    options = f"loop,ro,nosuid,nodev,noexec,offset={start},sizelimit={size}"
    run(["mount", "-o", options, raw, place], timeout=_TIMEOUT)
    try:
        yield place
    finally:
        run(["umount", place], timeout=_TIMEOUT)
        place.rmdir()


def _largest_partition(raw: Path) -> tuple[int, int]:
    """Where in a disk its largest partition begins and how long it is, in bytes; all of a disk without any."""
    listed = run(["sfdisk", "--json", raw], timeout=_TIMEOUT, check=False)
    if listed.exit_status != 0:
        return 0, raw.stat().st_size
    table = json.loads(listed.stdout)["partitiontable"]
    sector = int(table.get("sectorsize", _SECTOR))
    largest = max(table.get("partitions", []), key=lambda partition: int(partition["size"]), default=None)
    if largest is None:
        raise InputError("the disk has no partitions")
    return int(largest["start"]) * sector, int(largest["size"]) * sector

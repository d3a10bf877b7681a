"""Take in an image of the user's own: a tar of a root file system, or a disk (qcow2, raw and what else qemu-img
reads) whose largest partition holds one.

Whatever it was, it becomes what a built image is: a tree and, where it holds a kernel, a disk, of one content.
What guests need must be in it, see `probing`.
"""

from __future__ import annotations

import contextlib
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cleanroom_base.errors import InputError, Problem
from cleanroom_base.run import run
from cleanroom_images import description, probing
from cleanroom_images.build import pack, unpack_tar
from cleanroom_images.catalogue import Catalogue
from cleanroom_images.description import Description
from cleanroom_images.store import Image

_TIMEOUT = 1800.0
_SECTOR = 512
# The whole root is on one disk, whose file system grows at the start to what the guest was given.
_FSTAB = "/dev/vda\t/\text4\trw,noatime,x-systemd.growfs\t0\t0\n"
# What a partition can hold in which there is a file system only further inside. Source: libblkid's names.
_WRAPPED = {"LVM2_member": "LVM volumes", "crypto_LUKS": "encrypted data", "linux_raid_member": "a part of a RAID"}
# Words of os-release(5) by which distributions tell that they are like an older one.
_RPM_LIKE = {"fedora", "rhel", "centos", "rocky", "almalinux", "suse", "opensuse"}


def import_image(
    catalogue: Catalogue, name: str, file: Path, *, observer: Callable[[str], None] | None = None
) -> Image:
    """Import `file` as the image `name` and put it in place.

    Raises InputError when it is not what can be imported, with all that is missing in it, CommandError when a program
    fails on it.
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
        if _is_tar(file):
            unpack_tar(file, tree, tell)
        else:
            _copy_from_disk(file, directory, tree, tell)
        described = _described(name, tree)
        lacking = probing.missing(tree)
        if any(lack.needed for lack in lacking):
            problems = [Problem(lack.what, f"is missing: {lack.why}") for lack in lacking if lack.needed]
            raise InputError(f"no guest can be driven that starts from {file.name}", problems=problems)
        for lack in lacking:
            tell(f"missing: {lack}")
        _settle(tree, tell)
        image = pack(described, directory, tell)
        catalogue.store.switch(catalogue.store.seal(image, directory))
    return catalogue.image(name)


def _is_tar(file: Path) -> bool:
    """Whether a file is a tar, packed or not; one that begins with zeros is a disk, though also an empty tar."""
    with file.open("rb") as source:
        return any(source.read(_SECTOR)) and tarfile.is_tarfile(file)


def _settle(tree: Path, tell: Callable[[str], None]) -> None:
    """Have a system mount what a guest has: the disk it came from had other partitions, and it would wait for them."""
    directory = probing.find(tree, "etc")
    if directory is None:
        return
    table = directory / "fstab"
    if table.is_symlink() or not table.is_file():
        table.unlink(missing_ok=True)
    elif any(
        line.strip() and not line.lstrip().startswith("#") for line in table.read_text(errors="replace").splitlines()
    ):
        tell("its /etc/fstab, which names other disks, is replaced")
    table.write_text(_FSTAB, encoding="ascii")


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
        architecture=probing.architecture(tree),
        formats=("rpm", "script") if like & _RPM_LIKE else description.FORMATS,
        packages=(),
        provision=None,
    )


def _release(tree: Path) -> dict[str, str]:
    """os-release(5) of a tree, read without following a link out of it."""
    file = probing.find(tree, "usr/lib/os-release") or probing.find(tree, "etc/os-release")
    if file is not None and file.is_file():
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        pairs = (line.split("=", 1) for line in lines if "=" in line)
        return {key: value.strip("\"'") for key, value in pairs}
    raise InputError("this holds no root file system: there is no /usr/lib/os-release in it")


def _copy_from_disk(file: Path, directory: Path, tree: Path, tell: Callable[[str], None]) -> None:
    raw = directory / ".disk.raw"
    told = json.loads(run(["qemu-img", "info", "--output=json", file], timeout=_TIMEOUT).stdout)
    if "backing-filename" in told or "data-file" in told.get("format-specific", {}).get("data", {}):
        # It would bring whatever file of this machine it names into the image.
        raise InputError(f"{file} refers to another file, and only a disk on its own can be imported")
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
    look: list[str | Path] = ["blkid", "--probe", "--offset", str(start), "--output", "value", "--match-tag", "TYPE"]
    held = run([*look, raw], timeout=_TIMEOUT, check=False).text.strip()
    if held in _WRAPPED or not held:
        raise InputError(
            f"the largest partition of the disk holds {_WRAPPED.get(held, 'no file system')}",
            hint="import a tar of its root file system instead",
        )
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

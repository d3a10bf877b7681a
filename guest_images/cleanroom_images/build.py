"""Build an image from its description: one root file system, packed as a tree and as a bootable disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.run import run
from cleanroom_images import manifest
from cleanroom_images.catalogue import Catalogue
from cleanroom_images.description import Description
from cleanroom_images.store import Image, now

Observer = Callable[[str], None]

_INSTALL_TIMEOUT = 3600.0
_PACK_TIMEOUT = 900.0
# Room on the disk for what changes before its file system has grown to what a guest is given.
_DISK_ROOM = 256 << 20
# Blocks of 4 KiB up to which the file system can grow while it is mounted: 1 TiB.
_RESIZE = 1 << 28
# One moment for all images, so that the same packages give the same bytes.
_EPOCH = "1700000000"


def build(
    catalogue: Catalogue,
    name: str,
    *,
    observer: Observer | None = None,
) -> Image:
    """Build the described image `name` and put it in place; guests that run keep the one they started from.

    `observer` is told what happens. Takes one to two minutes. Raises InputError, InfrastructureError.
    """
    described = catalogue.description(name)
    tell = observer or (lambda _: None)
    with catalogue.store.building(name) as directory:
        tar = directory / ".root.tar"
        _install(described, tar, tell)
        (directory / "tree").mkdir()
        unpack_tar(tar, directory / "tree", tell)
        tar.unlink()
        image = pack(described, directory, tell)
        return catalogue.store.seal(image, directory)


def unpack_tar(tar: Path, tree: Path, tell: Observer) -> None:
    """Unpack a root file system into the directory `tree`, all but its device files: whoever starts a guest makes
    those."""
    tell("unpacking the tree for containers")
    unpack: list[str | Path] = ["tar", "--extract", "--file", tar, "--directory", tree, "--numeric-owner"]
    run([*unpack, "--xattrs", "--xattrs-include=*", "--exclude=./dev/*", "--exclude=dev/*"], timeout=_PACK_TIMEOUT)


def pack(described: Description, directory: Path, tell: Observer) -> Image:
    """Make all parts of an image in `directory` from the root file system in its `tree`."""
    tree = directory / "tree"
    tell("taking checksums")
    digest = manifest.write(tree, directory / "manifest")
    kernel, initrd = (_boot_file(tree, part, directory / part) for part in ("kernel", "initrd"))
    tell("making the disk for virtual machines")
    disk = directory / "disk.ext4"
    _make_disk(tree, disk, digest)
    return Image(
        name=described.name,
        digest=digest,
        directory=directory,
        architecture=described.architecture,
        distribution=described.distribution,
        suite=described.suite,
        formats=described.formats,
        built_at=now(),
        size=0,
        tree=tree,
        disk=disk,
        disk_format="raw",
        kernel=kernel,
        initrd=initrd,
    )


def _install(described: Description, tar: Path, tell: Observer) -> None:
    command: list[str | Path] = ["mmdebstrap", "--variant=apt", "--format=tar"]
    command += [f"--architectures={described.architecture}", f"--components={','.join(described.components)}"]
    if described.packages:
        command.append(f"--include={','.join(described.packages)}")
    if described.provision is not None:
        command.append(f"--customize-hook={described.provision}")
    environment = {"SOURCE_DATE_EPOCH": _EPOCH, "LC_ALL": "C.UTF-8"}
    printed = bytearray()

    def listen(chunk: bytes) -> None:
        printed.extend(chunk)
        del printed[:-8192]
        for line in chunk.decode(errors="replace").splitlines():
            if line.startswith("I: "):
                tell(line.removeprefix("I: "))

    # No mirror is named: mmdebstrap knows the one to use for a suite.
    command += [described.suite, tar]
    completed = run(command, timeout=_INSTALL_TIMEOUT, check=False, output=listen, environment=environment)
    if completed.exit_status != 0:
        end = printed.decode(errors="replace").strip().splitlines()[-15:]
        raise InfrastructureError(
            f"mmdebstrap could not install {described.name}:\n  " + "\n  ".join(end),
            hint="is the package mirror reachable from this host ('apt-get update')?",
        )


def _boot_file(tree: Path, part: str, place: Path) -> Path | None:
    """Copy the newest kernel or initrd out of the tree; None when the image has none."""
    pattern = {"kernel": "vmlinuz-*", "initrd": "initrd.img-*"}[part]
    found = sorted((tree / "boot").glob(pattern))
    if not found:
        return None
    run(["cp", "--reflink=auto", found[-1], place], timeout=_PACK_TIMEOUT)
    return place


def _make_disk(tree: Path, disk: Path, digest: str) -> None:
    used = run(["du", "-s", "-B1", tree], timeout=_PACK_TIMEOUT).text.split()[0]
    # Inodes and the like take up to a twelfth; a whole number of MiB.
    size = (int(used) * 12 // 11 + _DISK_ROOM) >> 20 << 20
    with disk.open("wb") as file:
        file.truncate(size)
    # From the digest, so that the same content gives the same disk. Source: RFC 9562, version 8 (custom).
    identifier = f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-L", "root", "-U", identifier]
    command += ["-E", f"hash_seed={identifier},lazy_itable_init=1,lazy_journal_init=1,resize={_RESIZE}"]
    run(
        [*command, "-d", str(tree), str(disk)],
        timeout=_PACK_TIMEOUT,
        environment={"E2FSPROGS_FAKE_TIME": _EPOCH, "SOURCE_DATE_EPOCH": _EPOCH},
    )

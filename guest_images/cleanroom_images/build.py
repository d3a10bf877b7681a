"""Build an image from its description: one root file system, packed as a tree and as a bootable disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.run import run
from cleanroom_images import emulation, manifest, probing
from cleanroom_images.catalogue import Catalogue
from cleanroom_images.description import Description
from cleanroom_images.store import Image, ImageMissing, now

Observer = Callable[[str], None]
# Gets a new image before it is the present one, and raises an error when it is not good.
Accept = Callable[[Image], None]

_INSTALL_TIMEOUT = 3600.0
_PACK_TIMEOUT = 900.0
# Room on the disk for what changes before its file system has grown to what a guest is given.
_DISK_ROOM = 256 << 20
# Blocks of 4 KiB up to which the file system can grow while it is mounted: 1 TiB.
_RESIZE = 1 << 28
# One moment for all images, so that the same packages give the same bytes.
_EPOCH = "1700000000"
# Where apt keeps what packages there are, and what it makes of that.
_LISTS = ("var/lib/apt/lists/", "var/cache/apt/")
# What mmdebstrap is to do, in place of installing a system, to extend one. Its hooks get the root directory. A program
# that adds to it finds the network, which an image itself says nothing about.
_COPY = """set -eu
rm -f -- "$1/etc/resolv.conf" "$1/etc/hostname"
cp --archive --reflink=auto -- "$CLEANROOM_BASE/." "$1"
"""
_CONNECT = """set -eu
cd -- "$1/etc"
if [ -e resolv.conf ] || [ -L resolv.conf ]; then mv -- resolv.conf .resolv.conf; fi
cp -- /etc/resolv.conf resolv.conf
"""
_ADD = """set -eu
chroot "$1" apt-get --yes --no-install-recommends -o Dpkg::Use-Pty=false install $CLEANROOM_PACKAGES
"""
_DISCONNECT = """set -eu
cd -- "$1/etc"
rm -f -- resolv.conf
if [ -e .resolv.conf ] || [ -L .resolv.conf ]; then mv -- .resolv.conf resolv.conf; fi
"""


def build(
    catalogue: Catalogue,
    name: str,
    *,
    observer: Observer | None = None,
) -> Image:
    """Build the described image `name` and put it in place; guests that run keep the one they started from.

    An image that it extends is built before, if it is not there. `observer` is told what happens. Takes one to two
    minutes. Raises InputError, InfrastructureError.
    """
    described = catalogue.description(name)
    with catalogue.store.building(name) as directory:
        made = _make(catalogue, described, directory, observer or (lambda _: None))
        catalogue.store.switch(catalogue.store.seal(made, directory))
    return catalogue.image(name)


def refresh(catalogue: Catalogue, name: str, accept: Accept, *, observer: Observer | None = None) -> Image:
    """Build the described image `name` anew beside the present one; returns the one that is present afterwards.

    `accept` gets the new one and raises an error when it is not good: then it is gone again, and the present one
    stays. It also stays when nothing is new. Raises InputError, InfrastructureError, what `accept` raises.
    """
    described = catalogue.description(name)
    store = catalogue.store
    with store.building(name) as directory:
        store.note_try(name)
        made = _make(catalogue, described, directory, observer or (lambda _: None))
        if not _nothing_new(catalogue, made):
            new = store.seal(made, directory)
            try:
                accept(new)
                store.switch(new)
            finally:
                store.settle(name)
    return catalogue.image(name)


def _nothing_new(catalogue: Catalogue, made: Image) -> bool:
    """Whether the present image is sound and has the same content, up to the lists of packages that exist: a mirror
    signs those anew several times a day."""
    try:
        present = catalogue.image(made.name)
        catalogue.store.check(present)
    except InfrastructureError:
        return False
    if present.tree is None or (present.extends, present.parent) != (made.extends, made.parent):
        return False
    return present.digest == made.digest or manifest.same(present.manifest, made.manifest, but=_LISTS)


def _make(catalogue: Catalogue, described: Description, directory: Path, tell: Observer) -> Image:
    """Make all parts of a described image in `directory`."""
    emulation.ensure(described.architecture)
    tar = directory / ".root.tar"
    parent = None if described.extends is None else _base(catalogue, described.extends, tell)
    if parent is None:
        _install(described, tar, tell)
    else:
        with catalogue.store.held(parent.name):
            catalogue.store.check(parent)
            _extend(described, parent, tar, tell)
    (directory / "tree").mkdir()
    unpack_tar(tar, directory / "tree", tell)
    tar.unlink()
    image = pack(described, directory, tell)
    return image if parent is None else replace(image, extends=parent.name, parent=parent.digest)


def _base(catalogue: Catalogue, name: str, tell: Observer) -> Image:
    """The image that another one extends."""
    try:
        return catalogue.image(name)
    except ImageMissing:
        tell(f"building {name} first")
        return build(catalogue, name, observer=tell)


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
    boot = probing.boot_files(tree)
    for part, file in zip(("kernel", "initrd"), boot or (), strict=False):
        run(["cp", "--reflink=auto", file, directory / part], timeout=_PACK_TIMEOUT)
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
        kernel=directory / "kernel" if boot else None,
        initrd=directory / "initrd" if boot else None,
    )


def _install(described: Description, tar: Path, tell: Observer) -> None:
    """Make a root file system from packages."""
    options = ["--variant=apt", f"--architectures={described.architecture}"]
    options.append(f"--components={','.join(described.components)}")
    if described.packages:
        options.append(f"--include={','.join(described.packages)}")
    if described.provision is not None:
        options.append(f"--customize-hook={described.provision}")
    _mmdebstrap(described, options, tar, tell, {})


def _extend(described: Description, base: Image, tar: Path, tell: Observer) -> None:
    """Make a root file system from that of another image, as mmdebstrap's manual shows it under "re-use"."""
    if base.tree is None:
        raise InputError(f"the image {base.name} cannot be extended: it is a disk without a tree")
    if described.packages and not (base.tree / "usr/bin/apt-get").is_file():
        raise InputError(
            f"packages can only be added where there is apt, and {base.name} has none",
            hint=f"install them in the provision program of {described.name}",
        )
    options = ["--variant=custom", f"--architectures={described.architecture}", f"--setup-hook={_COPY}"]
    # Without packages nothing needs to know which there are.
    options += [] if described.packages else ["--skip=update"]
    options.append(f"--customize-hook={_CONNECT}")
    options += [f"--customize-hook={_ADD}"] if described.packages else []
    options += [f"--customize-hook={described.provision}"] if described.provision is not None else []
    options.append(f"--customize-hook={_DISCONNECT}")
    given = {"CLEANROOM_BASE": str(base.tree), "CLEANROOM_PACKAGES": " ".join(described.packages)}
    _mmdebstrap(described, options, tar, tell, given)


def _mmdebstrap(
    described: Description, options: list[str], tar: Path, tell: Observer, environment: dict[str, str]
) -> None:
    printed = bytearray()

    def listen(chunk: bytes) -> None:
        printed.extend(chunk)
        del printed[:-8192]
        for line in chunk.decode(errors="replace").splitlines():
            if line.startswith("I: "):
                tell(line.removeprefix("I: "))

    # No mirror is named: mmdebstrap knows the one to use for a suite, and the image that is extended has its own.
    suite = described.suite if described.extends is None else ""
    completed = run(
        [*_mounting(), "mmdebstrap", "--format=tar", *options, suite, tar],
        timeout=_INSTALL_TIMEOUT,
        check=False,
        output=listen,
        # What is left behind by one that is killed lies where the next builder clears it away.
        environment={"SOURCE_DATE_EPOCH": _EPOCH, "LC_ALL": "C.UTF-8", "TMPDIR": str(tar.parent), **environment},
    )
    if completed.exit_status != 0:
        end = printed.decode(errors="replace").strip().splitlines()[-15:]
        raise InfrastructureError(
            f"mmdebstrap could not install {described.name}:\n  " + "\n  ".join(end),
            hint="is the package mirror reachable from this host ('apt-get update')?",
        )


def _mounting() -> list[str]:
    """What a program stands behind that mounts: the mounts are its own, so that they end with it also where it is
    killed. Without root it has a namespace of its own already. Source: unshare(1)."""
    return ["unshare", "--mount", "--propagation", "private", "--"] if os.geteuid() == 0 else []


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

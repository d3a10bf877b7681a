"""What is in a root file system that guests need, and what is missing: imported ones were made for something else.

Everything is looked up as a guest would see it, never following a link out of the tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cleanroom_images.description import native_architecture

_MOST_LINKS = 40
# Source: elf(5), e_machine; EM_ constants of the kernel's uapi/linux/elf-em.h.
_MACHINES = {21: "ppc64el", 22: "s390x", 62: "amd64", 183: "arm64", 243: "riscv64"}
_SYSTEMD = ("usr/lib/systemd/systemd", "lib/systemd/systemd")
# What every guest needs: what it is, where it may lie, what for.
_NEEDED = (
    ("systemd", _SYSTEMD, "it starts everything in a guest"),
    ("/sbin/init", ("sbin/init",), "it is what is started first; usually a link to systemd"),
    ("an SSH server", ("usr/sbin/sshd", "usr/bin/sshd"), "commands come in through it"),
    ("a shell", ("bin/sh",), "commands are run by it"),
    ("tar", ("bin/tar", "usr/bin/tar"), "files are copied in and out by it"),
    ("useradd", ("usr/sbin/useradd",), "builds run as a user that is made for them"),
)
# What only virtual machines need.
_NETWORK = ("usr/lib/systemd/systemd-networkd", "lib/systemd/systemd-networkd")
_PERL = ("usr/bin/perl",)


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that an image lacks, and what follows. Without what is `needed` no guest can be driven."""

    what: str
    why: str
    needed: bool

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


def missing(tree: Path) -> list[Missing]:
    """What the root file system `tree` lacks, what is needed first."""
    found = [Missing(what, why, True) for what, places, why in _NEEDED if not _any(tree, places)]
    if boot_files(tree) is None:
        found.append(Missing("a kernel with its initrd in /boot", "its guests can only be containers", False))
        return found
    if not _any(tree, _NETWORK):
        found.append(Missing("systemd-networkd", "its virtual machines get no address", False))
    if not _any(tree, _PERL):
        found.append(Missing("perl", "its virtual machines always boot, and never go on from a snapshot", False))
    return found


def boot_files(tree: Path) -> tuple[Path, Path] | None:
    """The newest kernel of a root file system for which there is an initrd, and that one; None when there is none."""
    boot = find(tree, "boot")
    kernels = {file.name.removeprefix("vmlinuz-"): file for file in boot.glob("vmlinuz-*")} if boot else {}
    # Debian's name of an initrd, and that of dracut, by which Fedora and its like have theirs.
    for version in sorted((name for name in kernels if "rescue" not in name), key=_version, reverse=True):
        for name in (f"initrd.img-{version}", f"initramfs-{version}.img"):
            initrd = find(tree, f"boot/{name}")
            kernel = find(tree, f"boot/vmlinuz-{version}")
            if kernel is not None and initrd is not None:
                return kernel, initrd
    return None


def architecture(tree: Path) -> str:
    """The architecture of a root file system's programs, in Debian's words; the host's own where nothing tells."""
    for place in _SYSTEMD:
        program = find(tree, place)
        if program is not None and program.is_file():
            with program.open("rb") as file:
                header = file.read(20)
            if header[:4] == b"\x7fELF" and len(header) == 20:
                number = int.from_bytes(header[18:20], "little" if header[5] == 1 else "big")
                return _MACHINES.get(number, f"machine-{number}")
    return native_architecture()


def find(tree: Path, path: str) -> Path | None:
    """Where `path` lies when `tree` is the root directory, links resolved as they are there; None when nowhere."""
    here, links = tree, 0
    parts = path.split("/")[::-1]
    while parts:
        part = parts.pop()
        if part == "..":
            here = here if here == tree else here.parent
        elif part not in ("", "."):
            following = here / part
            if not following.is_symlink():
                here = following
                continue
            links += 1
            if links > _MOST_LINKS:
                return None
            target = str(following.readlink())
            here = tree if target.startswith("/") else here
            parts.extend(target.split("/")[::-1])
    return here if here.exists() else None


def _any(tree: Path, places: tuple[str, ...]) -> bool:
    return any(find(tree, place) is not None for place in places)


def _version(text: str) -> list[tuple[int, str]]:
    """For sorting: numbers in a version by their value."""
    words = "".join(letter if letter.isdigit() else " " for letter in text).split()
    return [(int(word), "") for word in words] + [(0, text)]

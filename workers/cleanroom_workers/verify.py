"""How a running guest differs from its image: the proof that a reset guest is clean.

A container's differences are in the upper layer of its overlay, seen from outside. A virtual machine is asked
to list its own files, which proves something right after a reset, before any product ran in it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_images import manifest
from cleanroom_images.store import Image
from cleanroom_workers.guest import Guest

_TIMEOUT = 900.0
_LISTING_LIMIT = 256 << 20
# Where only what runs is seen, not what is stored.
_ELSEWHERE = ("dev", "proc", "run", "sys", "tmp")
# What the start of a guest makes in every one of them, apart from the files that we give it.
_STARTED = frozenset(
    (
        *(".oldroot", "etc/.pwd.lock", "etc/.updated", "var/.updated", "lost+found", "etc/resolv.conf"),
        *("var/lib/dbus/machine-id", "var/lib/systemd/random-seed", "var/lib/systemd/timers"),
        *(
            "var/log/README",
            "var/log/btmp",
            "var/log/lastlog",
            "var/log/wtmp",
            "var/log/wtmp.db",
            "var/log/private",
        ),
    )
)


def differences(
    guest: Guest, image: Image, listed: Path, home: Path, given: Mapping[str, object], first_user: int
) -> list[str]:
    """What differs between a running guest and what it started from, in words; an empty list proves that it is clean.

    `listed` is the manifest of its image, with the layer that lies on it, if any; `home` is the directory of the
    guest's own files on the host, `given` has the paths of the files that it was given, `first_user` is the host's
    number of a container's root. Raises InfrastructureError, GuestLost.
    """
    if not listed.is_file():
        raise InfrastructureError(f"the image {image.name} has no manifest to compare with")
    sealed = dict(_entries(listed.read_text(encoding="utf-8").splitlines()))
    if guest.isolation == "container":
        found = _upper(home / "store" / "upper", first_user, sealed)
    else:
        found = _compared(_listing(guest), sealed)
    return sorted(how for path, how in found if not _expected(path, given))


def _expected(path: str, given: Mapping[str, object]) -> bool:
    parents = {name.rsplit("/", 1)[0] for name in given if "/" in name}
    return path in _STARTED or path in given or path in parents or path.split("/", 1)[0] in _ELSEWHERE


def _entries(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Path and description of each line of a manifest."""
    for line in lines:
        description, path = line.rsplit(" ", 1)
        yield path, description


def _upper(upper: Path, first_user: int, sealed: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The paths in an overlay's upper layer that are not as in the image.

    Source: the kernel's Documentation/filesystems/overlayfs.rst (a device 0:0 stands for a removed file).
    """
    root = os.fsencode(upper)
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(directory, name)  # noqa: PTH118 - names may be bytes that are no text
            status = os.lstat(path)
            known = manifest.escape(os.path.relpath(path, root))
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                yield known, f"{known} was removed"
            elif known not in sealed:
                yield known, f"{known} was added"
            elif manifest.describe(path, owner_offset=first_user) != sealed[known]:
                yield known, f"{known} was changed"


def _listing(guest: Guest) -> Iterator[tuple[str, str]]:
    """What a guest says about its own files, in a manifest's words."""
    hashes: dict[bytes, str] = {}
    for entry in _ask(guest, "find / -xdev -type f -print0 | xargs -0 sha256sum -z --"):
        digest, _, path = entry.partition(b"  ")
        hashes[path.lstrip(b"/")] = digest.decode("ascii", errors="replace")
    kinds = {b"f": "file", b"d": "directory", b"l": "link", b"p": "pipe", b"s": "socket"}
    for entry in _ask(guest, r"find / -xdev -printf '%y %04m %U %G\t%l\t%P\0'"):
        head, _, rest = entry.partition(b"\t")
        target, _, path = rest.partition(b"\t")
        kind, _, numbers = head.partition(b" ")
        content = {b"f": hashes.get(path, ""), b"l": manifest.escape(target)}.get(kind, "-")
        word = kinds.get(kind, "device")
        yield manifest.escape(path or b"."), f"{word} {numbers.decode('ascii', errors='replace')} {content}"


def _compared(found: Iterator[tuple[str, str]], sealed: dict[str, str]) -> Iterator[tuple[str, str]]:
    missing = dict(sealed)
    for path, description in found:
        expected = missing.pop(path, None)
        if expected is None:
            yield path, f"{path} was added"
        elif expected != description:
            yield path, f"{path} was changed"
    yield from ((path, f"{path} was removed") for path in missing)


def _ask(guest: Guest, script: str) -> list[bytes]:
    completed = guest.run(["sh", "-c", script], timeout=_TIMEOUT, output_limit=_LISTING_LIMIT)
    return completed.stdout.split(b"\0")[:-1]

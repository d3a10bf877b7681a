"""A directory tree as another user range sees it, by an idmapped mount: no file is copied or changed.

Root in a container is then nobody on the host. mount(8) learnt this in version 2.39, Debian 12 has an older one,
so the system calls are made here. Source: mount_setattr(2), open_tree(2), move_mount(2), user_namespaces(7).
"""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

from cleanroom_base.errors import InfrastructureError, TimedOut
from cleanroom_base.run import kill_group, start

COUNT = 65536
# Between what systemd hands out to its containers and the largest signed number.
# Source: https://systemd.io/UIDS-GIDS/
_FIRST = 0x7000_0000
_TIMEOUT = 5.0

# The numbers of these calls are the same on all architectures.
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_IDMAP = 0x100000

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def first_user(index: int) -> int:
    """The host's number for root in the container of that index, 0 to 4095: ranges do not overlap."""
    return _FIRST + index * COUNT


def mount(tree: Path, place: Path, first: int, *, stored: int = 0) -> None:
    """Mount `tree`, read-only, at `place`, where user and group `stored` appear as `first`, the next as its next.

    Raises InfrastructureError when the kernel or the file system cannot.
    """
    namespace = _user_namespace(stored, first)
    try:
        clone = _call(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(tree), _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC)
        try:
            attributes = _MountAttributes(_MOUNT_ATTR_IDMAP | _MOUNT_ATTR_RDONLY, 0, 0, namespace)
            size = ctypes.sizeof(attributes)
            _call(_SYS_MOUNT_SETATTR, clone, b"", _AT_EMPTY_PATH, ctypes.byref(attributes), size)
            target = os.fsencode(place)
            _call(_SYS_MOVE_MOUNT, clone, b"", _AT_FDCWD, target, _MOVE_MOUNT_F_EMPTY_PATH)
        finally:
            os.close(clone)
    finally:
        os.close(namespace)


def _user_namespace(stored: int, first: int) -> int:
    """An open user namespace with that mapping; a process has to live in it while it is set up."""
    process = start(["unshare", "--user", "sleep", str(int(_TIMEOUT))])
    try:
        deadline = time.monotonic() + _TIMEOUT
        place = Path(f"/proc/{process.pid}")
        ours = Path("/proc/self/ns/user").readlink()
        while (place / "ns/user").readlink() == ours:
            if time.monotonic() > deadline or process.poll() is not None:
                raise TimedOut("no user namespace could be made on this host")
            time.sleep(0.001)
        for name in ("uid_map", "gid_map"):
            (place / name).write_text(f"{stored} {first} {COUNT}", encoding="ascii")
        return os.open(place / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        kill_group(process)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise InfrastructureError(f"the kernel cannot map the users of a mount: {os.strerror(error)}")
    return result

"""What speaks against KVM before one has tried it. Nothing here can speak for it: see `probe`."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_DEVICE = Path("/dev/kvm")


def excluded(user: int, group: int) -> str | None:
    """Why virtual machines that run as this user and group cannot have KVM; None when nothing is known."""
    try:
        status = _DEVICE.stat()
    except OSError:
        return f"there is no {_DEVICE}"
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    if os.uname().machine == "x86_64" and not {"vmx", "svm"} & set(flags):
        return f"the processor offers no hardware virtualization (neither vmx nor svm), although {_DEVICE} exists"
    needed = stat.S_IROTH | stat.S_IWOTH
    if status.st_uid == user:
        needed = stat.S_IRUSR | stat.S_IWUSR
    elif status.st_gid == group:
        needed = stat.S_IRGRP | stat.S_IWGRP
    if status.st_mode & needed != needed:
        return f"the user that runs virtual machines (number {user}) may not open {_DEVICE}"
    return None

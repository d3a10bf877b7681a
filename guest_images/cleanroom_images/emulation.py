"""Programs of other architectures on this host: the kernel has them run by QEMU, once it was told so.

Needed where an image for another architecture is built: what its packages run is run here, in its root directory.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.run import CommandMissing, run
from cleanroom_images.description import native_architecture

# Source: the kernel's Documentation/admin-guide/binfmt-misc.rst.
_REGISTERED = Path("/proc/sys/fs/binfmt_misc")
_TIMEOUT = 60.0
# QEMU's names of architectures.
_EMULATORS = {"amd64": "x86_64", "arm64": "aarch64", "ppc64el": "ppc64le", "riscv64": "riscv64", "s390x": "s390x"}


def ensure(architecture: str, registered: Path = _REGISTERED) -> None:
    """Have this host run programs of an architecture, which Debian's packages for it do at the host's start.

    `registered` is where the kernel lists what it was told. Raises InfrastructureError when it cannot.
    """
    if architecture == native_architecture():
        return
    name = f"qemu-{_EMULATORS.get(architecture, architecture)}"
    if not (registered / name).exists():
        # Where they were installed without an init system, nobody did it yet.
        with contextlib.suppress(CommandMissing):
            run(["update-binfmts", "--enable", name], timeout=_TIMEOUT, check=False)
    if not (registered / name).exists():
        raise InfrastructureError(
            f"this host cannot run programs for {architecture}, which building an image for it takes",
            hint=f"install qemu-user-static and binfmt-support; then, as root: update-binfmts --enable {name}",
        )

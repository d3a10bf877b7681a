"""A well-known peer: autopkgtest-virt-qemu, Debian's way to a virtual machine for a test, on the same image.

It asks for Python, a shell on a serial line and a kernel with 9p in the guest, so it gets an image that extends ours
by these.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from installation import IMAGE, home, say

from cleanroom_base.errors import CleanroomError, InfrastructureError
from cleanroom_base.run import run
from cleanroom_images.build import build
from cleanroom_images.catalogue import Catalogue
from cleanroom_images.store import Image, ImageMissing

PROGRAM = "autopkgtest-virt-qemu"
_NAME = "peer"
_TIMEOUT = 600
_DESCRIPTION = f"""\
description = "{IMAGE} with what {PROGRAM} needs in a guest"
extends = "{IMAGE}"
packages = ["python3", "linux-image-{{architecture}}"]
provision = "provision"
"""
_PROVISION = """\
#!/bin/sh
set -eu
rm -f "$1"/boot/*-cloud-*
cat > "$1/etc/systemd/system/serial-shell.service" << 'END'
[Service]
ExecStart=/bin/sh
StandardInput=tty-fail
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
SendSIGHUP=yes
SuccessExitStatus=0 208 SIGHUP SIGINT SIGTERM SIGPIPE
END
mkdir -p "$1/etc/systemd/system/multi-user.target.wants"
ln -s ../serial-shell.service "$1/etc/systemd/system/multi-user.target.wants/"
"""
# It boots disks with a boot loader; ours has none, and /dev/kvm may be there and not work.
_EMULATOR = """\
#!/bin/bash
arguments=()
for word; do [ "$word" = -enable-kvm ] || arguments+=("$word"); done
exec qemu-system-x86_64 "${arguments[@]}" -accel tcg -kernel KERNEL -initrd INITRD \\
    -append "root=/dev/vda rw console=ttyS0"
"""


def seconds(runs: int) -> tuple[list[float], list[str]]:
    """From asking for a guest until it takes commands, so often; and why it did not, where it did not.

    It waits only seconds for what takes longer under emulation on a busy machine, and gives up: that is no reason to
    lose what else was measured.
    """
    if shutil.which(PROGRAM) is None:
        return [], ["it is not installed (apt-get install autopkgtest)"]
    found, failed = [], []
    try:
        image, emulator = _image(), home() / "peer-emulator"
        emulator.write_text(_EMULATOR.replace("KERNEL", str(image.kernel)).replace("INITRD", str(image.initrd)))
        emulator.chmod(0o755)
        while len(found) < runs and len(failed) < runs:
            try:
                found.append(_open(emulator, image))
            except InfrastructureError as error:
                failed.append(error.message)
    except CleanroomError as error:
        failed.append(error.message)
    return found, failed


def _open(emulator: Path, image: Image) -> float:
    told = bytearray()
    moments: list[float] = []

    def listen(chunk: bytes) -> None:
        told.extend(chunk)
        # One answer to being started, one to having opened a guest.
        if not moments and told.count(b"ok") > 1:
            moments.append(time.monotonic())

    begun = time.monotonic()
    command: list[str | Path] = [PROGRAM, "--qemu-command", emulator, "--boot=none", "--ram-size=1024", "--cpus=2"]
    run(
        [*command, f"--timeout-reboot={_TIMEOUT}", str(image.disk)],
        stdin=b"open\nquit\n",
        output=listen,
        timeout=_TIMEOUT,
    )
    if not moments:
        raise InfrastructureError(f"{PROGRAM} gave no guest: {told.decode(errors='replace')}")
    return moments[0] - begun


def _image() -> Image:
    folder = home() / "peer/guest_images" / _NAME
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "image.toml").write_text(_DESCRIPTION)
    (folder / "provision").write_text(_PROVISION)
    (folder / "provision").chmod(0o755)
    catalogue = Catalogue(home(), home() / "peer")
    try:
        return catalogue.image(_NAME)
    except ImageMissing:
        say(f"building the image {_NAME}")
        return build(catalogue, _NAME)

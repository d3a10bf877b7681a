"""What a guest is planned to be, for tests that start none."""

from __future__ import annotations

from pathlib import Path

from cleanroom_images.store import Image
from cleanroom_workers.identity import Identity
from cleanroom_workers.plan import Limits, Plan

LIMITS = Limits(processors=2, memory=1024, disk=4096, processes=1000)


def plan(tmp_path: Path) -> Plan:
    """A virtual machine that nobody has started."""
    image = Image(
        name="debian-12",
        digest="a" * 64,
        directory=tmp_path,
        architecture="amd64",
        distribution="debian",
        suite="bookworm",
        formats=("deb",),
        built_at="",
        size=0,
        tree=None,
        disk=tmp_path / "disk.ext4",
        disk_format="raw",
        kernel=tmp_path / "kernel",
        initrd=tmp_path / "initrd",
    )
    who = Identity("guest-1", "b" * 32, "52:54:00:00:00:01", b"key", "ssh-ed25519 AAAA", b"\x01\x02")
    return Plan(
        name="guest-1",
        home=tmp_path / "guest-1",
        image=image,
        limits=LIMITS,
        identity=who,
        files={"etc/hostname": (0o644, b"guest-1\n"), "etc/key": (0o600, b"it's a\n$secret `here`\n")},
        network="net",
        device="tap0",
        address="10.0.0.9",
        gateway="10.0.0.1",
        prefix=20,
        first_user=0,
    )

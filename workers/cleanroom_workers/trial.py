"""A new image is tried before it is taken: guests start from it, and what every build needs of one is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cleanroom_base.errors import CleanroomError, InfrastructureError
from cleanroom_base.settings import Settings
from cleanroom_images.catalogue import Catalogue
from cleanroom_images.store import Image
from cleanroom_workers.guest import Guest, plain_environment
from cleanroom_workers.host import Host
from cleanroom_workers.pool import Kind

# For the slowest: fetching the lists of packages under emulation.
_TIMEOUT = 900.0
_TAIL = 1000
# Each is a shell program that fails, and prints why, where something is wrong; and what it is that is wrong then.
_CHECKS = (
    ("units of systemd failed", "systemctl is-system-running --wait; ! systemctl --failed --no-legend | grep ."),
    ("packages are half installed", "! command -v dpkg > /dev/null || ! dpkg --audit | grep ."),
    ("dependencies of packages are missing", "! command -v apt-get > /dev/null || apt-get --quiet check"),
    (
        "the lists of packages cannot be fetched",
        "! command -v apt-get > /dev/null || apt-get --quiet -o APT::Update::Error-Mode=any update",
    ),
    ("it could not be upgraded", "! command -v apt-get > /dev/null || apt-get --quiet --simulate dist-upgrade"),
    ("dependencies of packages are missing", "! command -v dnf > /dev/null || dnf --quiet check --dependencies"),
    ("the lists of packages cannot be fetched", "! command -v dnf > /dev/null || dnf --quiet makecache"),
)


class ImageRefused(InfrastructureError):
    """A new image is not good."""


def try_image(settings: Settings, image: Image, tell: Callable[[str], None]) -> None:
    """Look whether a sealed image is good that is not the present one: in a guest of it, in the isolation that is usual
    and in each in which guests of that image were wanted lately. Raises ImageRefused."""
    # Virtual machines boot: that they can is to be seen, and a snapshot of an image that is refused is waste.
    booting = replace(settings, values={**settings.values, "worker.snapshots": "no"})
    host = Host(booting, Catalogue.of(settings, {image.name: image.digest}))
    usual = settings.text("worker.isolation")
    wanted = {wish.kind.isolation for wish in host.demand.wishes() if wish.kind.image == image.name}
    tried: set[str] = set()
    try:
        host.wake()
        for isolation in (usual, *sorted(wanted - {usual})):
            if isolation not in tried:
                tell(f"trying the new {image.name}")
                with host.start(Kind(image.name, isolation, "mirror", host.limits)) as guest:
                    tried |= {isolation, guest.isolation}
                    _examine(guest)
    except ImageRefused:
        raise
    except CleanroomError as error:
        raise ImageRefused(f"it could not be tried: {error.message}") from error
    finally:
        host.close()


def _examine(guest: Guest) -> None:
    for wrong, program in _CHECKS:
        done = guest.run(["sh", "-c", program], timeout=_TIMEOUT, environment=plain_environment("root"))
        if done.exit_status != 0:
            printed = (done.stdout + done.stderr)[-_TAIL:].decode(errors="replace").strip()
            raise ImageRefused(f"{wrong} ({guest.isolation}): {printed}")

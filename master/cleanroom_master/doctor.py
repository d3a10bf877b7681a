"""What works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from cleanroom_base.errors import CleanroomError
from cleanroom_base.settings import Settings
from cleanroom_db import cluster, migrate
from cleanroom_db.roles import Role
from cleanroom_images.catalogue import Catalogue
from cleanroom_master import supervisor
from cleanroom_master.conflicts import check
from cleanroom_master.publish import signing
from cleanroom_master.publish.site import repository_directory
from cleanroom_workers.host import Host

# Programs, and the Debian package that brings each.
PROGRAMS = {
    "git": "git",
    "gpg": "gnupg",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "libvirtd": "libvirt-daemon",
    "ssh": "openssh-client",
    "ip": "iproute2",
    "nft": "nftables",
    "apt-cacher-ng": "apt-cacher-ng",
    "dpkg-deb": "dpkg",
    "createrepo_c": "createrepo-c",
    "rpm": "rpm",
    "rpmsign": "rpm",
}
# Consumers need time to fetch a key whose validity was extended.
_KEY_DAYS = 30
_ELSEWHERE = "/usr/sbin:/sbin:/usr/local/sbin"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `optional`: Cleanroom does without it."""

    what: str
    works: bool
    detail: str
    remedy: str = ""
    optional: bool = False


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; nothing is changed but what looking needs (a libvirt daemon is started and used)."""
    return [
        finding
        for look in (_programs, _solver, _disk, _database, _ports, _images, _isolations)
        for finding in _guarded(look, settings)
    ]


def _guarded(look: Callable[[Settings], Iterator[Finding]], settings: Settings) -> Iterator[Finding]:
    """One look that fails does not hide the others."""
    try:
        yield from look(settings)
    except CleanroomError as error:
        yield Finding(look.__name__.strip("_"), False, error.message, error.hint or "")


def _programs(_: Settings) -> Iterator[Finding]:
    missing = sorted(
        {
            package
            for program, package in PROGRAMS.items()
            if not (shutil.which(program) or shutil.which(program, path=_ELSEWHERE))
        }
    )
    if missing:
        yield Finding("programs", False, f"missing: {', '.join(missing)}", f"apt-get install {' '.join(missing)}")
    else:
        yield Finding("programs", True, f"all {len(PROGRAMS)} are there")


def _solver(_: Settings) -> Iterator[Finding]:
    works = check.solver_works()
    detail = "can be asked what is installed with what" if works else f"{check.PYTHON} does not find it"
    yield Finding("solver", works, detail, "apt-get install python3-solv")


def _disk(settings: Settings) -> Iterator[Finding]:
    place = settings.state
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free >> 20
    least = settings.whole("storage.minimum_free")
    yield Finding(
        "disk",
        free >= least,
        f"{free} MiB free for {settings.state}; below {least} MiB no guest starts",
        "make room, or set storage.minimum_free",
    )


def _database(settings: Settings) -> Iterator[Finding]:
    if cluster.is_private(settings) and not cluster.status(settings).running:
        yield Finding("database", True, "a private cluster, not running; 'cleanroom up' starts it")
        return
    migrate.check(cluster.open_database(settings, Role.OWNER))
    yield Finding("database", True, "answers, and its schema is the newest")


def _ports(settings: Settings) -> Iterator[Finding]:
    if supervisor.running(settings):
        yield Finding("ports", True, "in use by Cleanroom itself, which runs")
        return
    taken = supervisor.taken_ports(settings)
    for key in supervisor.PORTS:
        if key in taken:
            yield Finding(key, False, taken[key], f"set {key} to a free port")
        else:
            yield Finding(key, True, f"{settings.whole(key)} is free")


def _key(settings: Settings) -> Iterator[Finding]:
    """When the key expires with which everything is signed; consumers refuse what comes after that."""
    published = repository_directory(settings) / "current/keys/cleanroom.asc"
    if not published.exists():
        return
    expires = signing.expiry(published)
    if expires is None:
        yield Finding("signing key", True, "never expires")
        return
    left = (expires - datetime.now(UTC)).days
    yield Finding(
        "signing key",
        left >= _KEY_DAYS,
        f"expires on {expires:%Y-%m-%d}, in {left} days",
        f"gpg --homedir {settings.state}/publisher/gnupg --quick-set-expire FINGERPRINT {signing.VALIDITY},"
        " then start the publisher anew",
    )


def _images(settings: Settings) -> Iterator[Finding]:
    for entry in Catalogue.of(settings).entries():
        if entry.image is None:
            yield Finding(
                f"image {entry.name}", False, "not built", f"cleanroom image build {entry.name}", optional=True
            )
        else:
            yield Finding(f"image {entry.name}", True, f"built {entry.image.built_at}, {entry.image.digest[:12]}")


def _isolations(settings: Settings) -> Iterator[Finding]:
    host = Host.open(settings)
    try:
        probes = host.probe()
    finally:
        host.close()
    any_works = any(probe.works for probe in probes)
    for probe in probes:
        yield Finding(f"isolation {probe.isolation}", probe.works, probe.reason, optional=any_works)

"""What works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cleanroom_base.errors import CleanroomError
from cleanroom_base.settings import Settings
from cleanroom_db import cluster, migrate
from cleanroom_db.roles import Role
from cleanroom_images.catalogue import Catalogue
from cleanroom_master import circumstances, supervisor, systemd
from cleanroom_master.conflicts import check
from cleanroom_master.findings import Finding
from cleanroom_master.places import Places
from cleanroom_master.publish import signing
from cleanroom_master.publish.site import repository_directory
from cleanroom_workers import room
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
_ELSEWHERE = "/usr/sbin:/sbin:/usr/local/sbin"


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; nothing is changed but what looking needs (a libvirt daemon is started and used)."""
    return [
        finding
        for look in (
            *(_programs, _solver, _disk, circumstances.memory, _database, circumstances.database, _ports, _keys),
            *(_images, circumstances.mirrors, circumstances.workers, circumstances.guests, _isolations),
        )
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
    found = room.look(settings)
    yield Finding(
        "disk",
        not found.low,
        f"{settings.state}: {found.words}",
        "make room (cleanroom housekeeping --dry-run shows what can go), or set storage.minimum_free",
    )


def _database(settings: Settings) -> Iterator[Finding]:
    if cluster.is_private(settings) and not cluster.status(settings).running:
        yield Finding("database", True, "a private cluster, not running; 'cleanroom up' starts it")
        return
    migrate.check(cluster.open_database(settings, Role.OWNER))
    yield Finding("database", True, "answers, and its schema is the newest")


def _ports(settings: Settings) -> Iterator[Finding]:
    if supervisor.running(settings) or systemd.active(settings):
        yield Finding("ports", True, "in use by Cleanroom itself, which runs")
        return
    taken = supervisor.taken_ports(settings)
    for key in supervisor.PORTS:
        if key in taken:
            yield Finding(key, False, taken[key], f"set {key} to a free port")
        else:
            yield Finding(key, True, f"{settings.whole(key)} is free")


def _keys(settings: Settings) -> Iterator[Finding]:
    """When the keys expire with which everything is signed; consumers refuse what comes after that."""
    published = repository_directory(settings) / "current/keys/cleanroom.asc"
    home = Places(settings).signing
    if published.exists() and _is_empty(home / "private-keys-v1.d"):
        remedy = "bring them back from a backup; if they are lost: cleanroom repository key rotate --lost"
        yield Finding("signing keys", False, f"vanished from {home}: nothing can be published", remedy)
    # Consumers need time to fetch a key whose validity was extended.
    least = settings.number("publisher.key_days")
    for fingerprint, expires in signing.expiries(published).items() if published.exists() else ():
        if expires is None:
            yield Finding(f"signing key {fingerprint}", True, "never expires")
            continue
        left = (expires - datetime.now(UTC)) / timedelta(days=1)
        when = f"expires on {expires:%Y-%m-%d}, in {left:.0f} days" if left > 0 else f"expired on {expires:%Y-%m-%d}"
        yield Finding(
            f"signing key {fingerprint}",
            left >= least,
            when,
            "cleanroom repository key rotate (a new key, both sign for a while), or cleanroom repository key extend",
        )


def _is_empty(directory: Path) -> bool:
    """Whether nothing is in a directory, or it is not there; false where that is not ours to see."""
    try:
        return not any(directory.iterdir())
    except FileNotFoundError:
        return True
    except PermissionError:
        return False


def warnings(settings: Settings) -> list[str]:
    """What does not work, or will not before long, unless somebody does something: a full disk, keys that expire."""
    findings = [finding for look in (_disk, _keys) for finding in _guarded(look, settings) if not finding.works]
    return [f"{finding.what} {finding.detail}; do: {finding.remedy}" for finding in findings]


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

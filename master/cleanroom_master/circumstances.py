"""Looks at what is around the processes: memory, clocks, mirrors, workers, guests that nobody claims."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import Settings
from cleanroom_db import cluster, inspection
from cleanroom_db.roles import Role
from cleanroom_images.catalogue import Catalogue
from cleanroom_master import supervisor
from cleanroom_master.findings import Finding
from cleanroom_workers import pool, proxy
from cleanroom_workers.description import described
from cleanroom_workers.host import Host

# With which versions of PostgreSQL the tests run.
_POSTGRESQL = 150000
# Leases and signatures compare times; apt refuses a date that lies ten seconds ahead.
_CLOCKS_APART = 5.0
_TIMEOUT = 10.0
# Buildbot's janitor runs in the master, and is listed as a worker.
_BUILDBOTS_OWN = "__"


def memory(settings: Settings) -> Iterator[Finding]:
    """Whether one more guest finds its memory."""
    free, guest = pool.available(), settings.whole("worker.memory")
    detail = f"{free} MiB are available; a guest may take {guest} MiB (worker.memory)"
    yield Finding("memory", free >= guest, detail, "end something, or set worker.memory", optional=True)


def database(settings: Settings) -> Iterator[Finding]:
    """The server's version, and whether its clock is this machine's. It must be known to answer."""
    if cluster.is_private(settings) and not cluster.status(settings).running:
        return
    opened = cluster.open_database(settings, Role.OWNER)
    try:
        before = time.time()
        found = inspection.server(opened)
        after = time.time()
    finally:
        opened.close()
    detail = f"PostgreSQL {found.version}, {found.size >> 20} MiB"
    remedy = "use PostgreSQL 15 or later: older ones were never tried"
    yield Finding("database version", found.number >= _POSTGRESQL, detail, remedy)
    apart = max(before - found.time, found.time - after, 0.0)
    yield Finding(
        "clock",
        apart < _CLOCKS_APART,
        f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(after))}, {apart:.1f} s from the database's",
        "have both machines' clocks be set by NTP",
    )


def mirrors(settings: Settings) -> Iterator[Finding]:
    """Whether the package mirrors that the images name answer, through the proxy that guests use."""
    store = Catalogue.of(settings).store
    named: dict[str, list[str]] = {}
    for name in store.names():
        try:
            tree = store.image(name).tree
        except InfrastructureError:
            # It is told as what it is: a damaged image.
            continue
        for address in proxy.mirrors_of(tree) if tree else ():
            named.setdefault(address, []).append(name)
    through = _guests_proxy(settings)
    for address, images in sorted(named.items()):
        yield mirror(address, images, through)


def mirror(address: str, images: Sequence[str], through: dict[str, str] | None) -> Finding:
    """Whether one mirror answers; `images` need it, and `through` are proxies as `requests` wants them."""
    # It takes a while to load, and every command loads this module.
    import requests

    what = f"mirror {urlsplit(address).hostname or address}"
    remedy = f"guests of {', '.join(images)} need it"
    try:
        status = requests.head(f"{address}/", timeout=_TIMEOUT, proxies=through, allow_redirects=True).status_code
    except requests.RequestException as error:
        return Finding(what, False, f"does not answer: {type(error).__name__}", remedy)
    # Who refuses to list its directories is there.
    return Finding(what, status < 500, f"answers with {status}", remedy)


def _guests_proxy(settings: Settings) -> dict[str, str] | None:
    """As `requests` wants it; None: none runs, so what the environment says is what the proxy would use."""
    found = proxy.CachingProxy(settings).current()
    return None if found is None else {"http": found.url, "https": found.url}


def workers(settings: Settings) -> Iterator[Finding]:
    """Whether workers are connected, and with the version of this program."""
    if not supervisor.running(settings):
        return
    yield from connected(settings.buildbot_url)


def connected(master: str) -> Iterator[Finding]:
    """What Buildbot's master at an address says of its workers."""
    import requests

    try:
        answer = requests.get(f"{master}/api/v2/workers", timeout=_TIMEOUT)
        answer.raise_for_status()
        found = [one for one in answer.json()["workers"] if isinstance(one, dict)]
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        yield Finding("workers", False, f"the master does not tell: {type(error).__name__}", "cleanroom status")
        return
    for worker in found:
        if str(worker.get("name")).startswith(_BUILDBOTS_OWN):
            continue
        told = worker.get("workerinfo") or {}
        theirs, ours = str(told.get("host") or "unknown").strip(), described()
        there = bool(worker.get("connected_to"))
        detail = f"{theirs}, Buildbot {told.get('version', 'unknown')}" if there else "is not connected"
        remedy = f"have {ours} run there, and see its log"
        yield Finding(f"worker {worker.get('name')}", there and theirs == ours, detail, remedy)


def guests(settings: Settings) -> Iterator[Finding]:
    """What is left of guests that nobody claims; the pool's process takes it away by itself."""
    host = Host(settings)
    try:
        left = host.unclaimed()
    finally:
        host.close()
    named = ", ".join([*left[:10], *(["..."] if len(left) > 10 else [])])
    detail = f"nobody claims {len(left)}: {named}" if left else "none is left over"
    yield Finding("guests", not left, detail, "cleanroom-worker reap", optional=True)

"""The database server of a test session, and rows to begin with."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from quick_place import quick_place

from cleanroom_base import settings as site
from cleanroom_base.settings import Settings
from cleanroom_db import attempts, cluster, migrate, products, ref_events, releases
from cleanroom_db.attempts import Lease, RetryPolicy
from cleanroom_db.connection import Database, execute_alone
from cleanroom_db.products import Product
from cleanroom_db.ref_events import NewRef, RefDetails, RefEvent
from cleanroom_db.releases import Planned, PlannedBuild, Release
from cleanroom_db.roles import Role
from cleanroom_recipes.model import Outcome

COMMIT = "a" * 40
OTHER_COMMIT = "b" * 40
DIGEST = "0" * 64
POLICY = RetryPolicy(limit=3, pause=0.0)


@dataclass
class Server:
    """The session's cluster, whose database `cleanroom` is the template."""

    settings: Settings

    def url(self, role: Role, database: str) -> str:
        """The URL of a role for one of the test databases."""
        return cluster.database_url(self.settings, role).replace("@/cleanroom?", f"@/{database}?")

    def execute(self, statement: str) -> None:
        """Run a statement on the server itself."""
        execute_alone(self.url(Role.OWNER, "postgres"), statement)


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """A cluster of its own, with the newest schema in its database `cleanroom`; nothing of it is left."""
    place = Path(tempfile.mkdtemp(prefix="cr-", dir=quick_place()))
    place.chmod(0o755)
    settings = site.load({"CLEANROOM_STATE": str(place), "CLEANROOM_SITE": str(place)})
    try:
        cluster.ensure(settings)
        migrate.migrate(settings)
        server = Server(settings)
        # Making and dropping a database a test would otherwise wait for the disk; nothing here outlives the session.
        server.execute("ALTER SYSTEM SET fsync = off")
        server.execute("SELECT pg_reload_conf()")
        yield server
    finally:
        cluster.stop(settings)
        shutil.rmtree(place)
        shutil.rmtree(settings.runtime, ignore_errors=True)


def plan(event: RefEvent, product: Product) -> Planned:
    """A release for Debian 12, as deb."""
    return plan_for("debian-12/deb")(event, product)


def plan_for(*targets: str) -> Callable[[RefEvent, Product], Planned]:
    """Releases for some targets."""
    builds = tuple(PlannedBuild(target, ("build", "install")) for target in targets)
    return lambda event, product: Planned(builds, {"name": product.name}, "digest", "testing")


def add_product(owner: Database, name: str = "hello") -> None:
    """A product."""
    products.add(owner, name, f"https://example.org/{name}.git")


def record_tags(owner: Database, *tags: str, product: str = "hello", commit: str = COMMIT) -> list[int]:
    """Resolved events of new tags."""
    refs = [NewRef(tag, RefDetails(commit)) for tag in tags]
    return ref_events.record_many(owner, product, refs, recorded_by="test")


def claim(owner: Database, tag: str, *targets: str) -> Release:
    """A release of a new tag."""
    record_tags(owner, tag)
    release = releases.claim_next(owner, plan_for(*(targets or ("debian-12/deb",))))
    assert release is not None
    return release


def begin(owner: Database, release: Release, name: str = "worker") -> Lease:
    """Work on the first attempt of a release that is due."""
    work = next(work for work in attempts.due(owner) if work.release_id == release.id)
    assert attempts.lease(owner, work.id, name, 60)
    return Lease(work.id, name)


def end(owner: Database, held: Lease, outcome: Outcome = Outcome.PASSED, why: str = "") -> None:
    """Finish an attempt."""
    attempts.finish(owner, held.attempt_id, held.owner, outcome, why, POLICY)

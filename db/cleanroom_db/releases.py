"""Releases: one ref event on its way, from the claim to the verdict.

The verdict on the builds of a release is made here and nowhere else, from rows, with the release locked.
Locks are taken in the order release, attempt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cleanroom_base.errors import InfrastructureError, InputError, ProductError
from cleanroom_base.log_records import about
from cleanroom_db import audit, conflicts, dependencies, dependents, gates, ref_events, reproductions, unions
from cleanroom_db.connection import Cursor, Database, Row, plain
from cleanroom_db.products import Product
from cleanroom_db.ref_events import RefEvent
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import GateState, RefChange, RefEventState, ReleaseState, SignaturePolicy, SignatureState
from cleanroom_recipes.model import Flaky, Gate, Outcome, RefKind

_SQL = load("releases")
_PRODUCTS = load("products")
_EVENTS = load("ref_events")

POSTPONE_SECONDS = 30.0
_log = logging.getLogger(__name__)
_OPEN = (ReleaseState.WAITING, ReleaseState.BUILDING)
_GOOD = (Outcome.PASSED, Outcome.SKIPPED)
# What becomes of a release by how its builds ended, the worst first.
_SPOILED = (
    ((Outcome.FAILED, Outcome.REGRESSED), ReleaseState.FAILED),
    ((Outcome.CANCELLED,), ReleaseState.CANCELLED),
    ((Outcome.INFRASTRUCTURE, Outcome.FLAKY), ReleaseState.HELD),
)


class UnknownRelease(InputError):
    """There is no such release, or none that may be read."""


@dataclass(frozen=True)
class Release(Entity):
    """One ref event on its way. `finished_at` None: its builds go on."""

    id: int
    product: str
    ref: str
    commit: str
    kind: RefKind
    version: str | None
    state: ReleaseState
    why: str
    hold_reason: str | None
    ref_event_id: int
    recipe: Mapping[str, Any]
    recipe_digest: str
    channel: str
    requested_by: str
    created_at: datetime
    finished_at: datetime | None
    gates: tuple[str, ...] = (str(Gate.BUILDS),)
    approved_by: str | None = None


@dataclass(frozen=True)
class PlannedBuild:
    """A build to be made: its target (`image/format`) and its phases in their order."""

    target: str
    phases: tuple[str, ...]


@dataclass(frozen=True)
class Planned:
    """What an event becomes. `version` None: known only once the source was looked at.

    `gates` are what must hold before it is published. `hold_reason` keeps it from that before a person approves;
    None: nothing does.
    """

    builds: tuple[PlannedBuild, ...]
    recipe: Mapping[str, Any]
    recipe_digest: str
    channel: str
    version: str | None = None
    hold_reason: str | None = None
    gates: tuple[str, ...] = (str(Gate.BUILDS),)


@dataclass(frozen=True)
class Claimed:
    """What a claim did: how many events it looked at, and the releases it made of them."""

    events: int
    releases: tuple[Release, ...]


Plan = Callable[[RefEvent, Product], Planned]


def claim_next(database: Database, plan: Plan) -> Release | None:
    """Make a release of the next event that may become one; None if none waits."""
    while True:
        claimed = claim_batch(database, plan, limit=1)
        if claimed.releases:
            return claimed.releases[0]
        if not claimed.events:
            return None


def claim_batch(database: Database, plan: Plan, *, limit: int) -> Claimed:
    """Make releases, with builds and first attempts, of up to `limit` waiting events, in one transaction.

    `plan` says what an event becomes. If it raises InputError or ProductError the event is refused with that
    reason; if it raises InfrastructureError the event waits a little more. Events that two processes claim at
    the same time are shared out between them.
    """
    with database.transaction() as cursor:
        rows = cursor.rows(_EVENTS["lock_claimable"], limit=limit)
        names = sorted({row["product"] for row in rows})
        products = {row["name"]: Product.from_row(row) for row in cursor.rows(_PRODUCTS["get_many"], names=names)}
        planned = []
        for row in rows:
            event = RefEvent.from_row(row)
            plans = _plan(database, event, products[event.product], plan, released=row["released"])
            if plans is not None:
                planned.append((event, plans))
        return Claimed(len(rows), tuple(_insert(database, cursor, planned)))


def find(database: Database, product: str, ref: str) -> Release:
    """The release of a ref. Raises InputError if there is none."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["find"], product=plain(product), ref=plain(ref))
    if row is None:
        raise InputError(
            f"there is no release of {product} {ref}",
            hint=f"'cleanroom ref list {product}' shows what was recorded",
        )
    return Release.from_row(row)


def get(database: Database, release_id: int) -> Release:
    """One release. Raises UnknownRelease."""
    with database.transaction() as cursor:
        row = cursor.row(_SQL["get"], id=release_id)
    if row is None:
        raise UnknownRelease(f"there is no release {release_id}")
    return Release.from_row(row)


def there(database: Database, ids: Iterable[int]) -> bool:
    """Whether one of these releases is there, for who asks."""
    with database.transaction() as cursor:
        return bool(cursor.value(_SQL["any_of"], ids=list(ids)))


def list_latest(
    database: Database, product: str | None = None, *, state: ReleaseState | None = None, limit: int = 100
) -> list[Release]:
    """The latest releases, newest first."""
    with database.transaction() as cursor:
        rows = cursor.rows(_SQL["list"], product=product, state=state, limit=limit)
    return [Release.from_row(row) for row in rows]


def builders(database: Database) -> list[tuple[str, str]]:
    """Every product with every target for which it ever had a build, in order."""
    with database.transaction() as cursor:
        return [(row["product"], row["target"]) for row in cursor.rows(_SQL["builders"])]


def set_version(database: Database, release_id: int, version: str) -> None:
    """Note the version that the source says."""
    with database.transaction() as cursor:
        cursor.execute(_SQL["set_version"], id=release_id, version=plain(version))


def retry(database: Database, release_id: int, actor: str, reason: str = "") -> list[int]:
    """Queue a new attempt of every build that did not pass, and return the builds' ids.

    Where all passed, the products that depend on the release are tried with it again, and it is installed together
    with others again.
    Raises InputError if there is nothing to try again.
    """
    with database.transaction() as cursor:
        release = lock(cursor, release_id)
        if release.state not in (ReleaseState.FAILED, ReleaseState.HELD, ReleaseState.CANCELLED):
            raise InputError(f"{release.product} {release.ref} is {release.state}: there is nothing to try again")
        again = [row for row in _attempts(cursor, release_id) if _outcome(row) not in _GOOD]
        tried_again = [dependents.forget(cursor, release_id), unions.forget(cursor, release_id)]
        if not again and not any(tried_again):
            raise InputError(f"all builds of {release.product} {release.ref} have passed")
        for row in again:
            cursor.execute(_SQL["insert_next_attempt"], build=row["build_id"], number=row["number"] + 1)
        gates.forget(cursor, release_id)
        conflicts.forget(cursor, release_id)
        _set_state(cursor, release_id, ReleaseState.WAITING, f"{actor} asked to try again")
        if not again:
            _settle(cursor, lock(cursor, release_id), requested_by=actor)
        audit.record(database, actor, "release retry", f"{release.product} {release.ref}", reason=reason)
        return [row["build_id"] for row in again]


def hold(database: Database, release_id: int, actor: str, reason: str) -> None:
    """Keep a release from being published. Raises InputError if it is too late for that."""
    with database.transaction() as cursor:
        release = lock(cursor, release_id)
        if release.state not in (*_OPEN, ReleaseState.HELD):
            raise InputError(f"{release.product} {release.ref} is {release.state}: too late to hold it")
        cursor.execute(_SQL["set_hold"], id=release_id, reason=plain(reason))
        audit.record(database, actor, "release hold", f"{release.product} {release.ref}", reason=reason)


def approve(database: Database, release_id: int, actor: str, reason: str) -> Release:
    """Let a held release go on, if its builds allow it; it stays held while another gate does not hold.

    Raises InputError if it is not held, or held because of its surroundings.
    """
    with database.transaction() as cursor:
        release = lock(cursor, release_id)
        outcomes = {_outcome(row) for row in _attempts(cursor, release_id)}
        if release.state is not ReleaseState.HELD or outcomes & {Outcome.INFRASTRUCTURE, Outcome.CANCELLED}:
            raise InputError(f"{release.product} {release.ref} is {release.state}: {release.why or 'not held'}")
        cursor.execute(_SQL["set_approved"], id=release_id, actor=plain(actor))
        _settle(cursor, lock(cursor, release_id), requested_by=actor)
        audit.record(database, actor, "release approve", f"{release.product} {release.ref}", reason=reason)
        return lock(cursor, release_id)


def waive(database: Database, release_id: int, actor: str, gate: str, *, reason: str, expires_at: datetime) -> Release:
    """Let a release pass without a gate, if it is judged before `expires_at`; one that was built is judged again.

    Raises InputError if the gate cannot be waived, or if it is too late for that.
    """
    with database.transaction() as cursor:
        release = lock(cursor, release_id)
        if release.state not in (*_OPEN, ReleaseState.FAILED, ReleaseState.HELD):
            raise InputError(f"{release.product} {release.ref} is {release.state}: there is nothing to waive")
        gates.waive(cursor, release_id, gates.NewWaiver(gate, actor, reason, expires_at))
        detail = {"gate": gate, "expires_at": expires_at.astimezone(UTC).isoformat()}
        audit.record(database, actor, "release waive", f"{release.product} {release.ref}", reason=reason, detail=detail)
        if release.state not in _OPEN or all(_outcome(row) is not None for row in _attempts(cursor, release_id)):
            _settle(cursor, release, requested_by=actor)
        return lock(cursor, release_id)


def lock(cursor: Cursor, release_id: int) -> Release:
    """The release, which nobody else changes until the transaction's end."""
    row = cursor.row(_SQL["lock"], id=release_id)
    if row is None:
        raise InputError(f"there is no release {release_id}")
    return Release.from_row(row)


def set_building(cursor: Cursor, release: Release) -> None:
    """Note that work on a (locked) release has begun."""
    if release.state is ReleaseState.WAITING:
        _set_state(cursor, release.id, ReleaseState.BUILDING, "")


def judge(cursor: Cursor, release: Release) -> None:
    """The verdict on a (locked) release from its builds' latest attempts: none while one is unfinished."""
    rows = _attempts(cursor, release.id)
    if release.state not in _OPEN or any(row["outcome"] is None for row in rows):
        return
    _settle(cursor, release, requested_by="verdict")


def judge_again(cursor: Cursor, release: Release) -> None:
    """The verdict on a (locked) release for which a trial has ended; one that was settled otherwise stays so."""
    if release.state is ReleaseState.HELD:
        _settle(cursor, release, requested_by="verdict")
    else:
        judge(cursor, release)


def _settle(cursor: Cursor, release: Release, *, requested_by: str) -> None:
    """Evaluate the gates of a (locked) release whose builds have ended, and let it pass, fail or wait."""
    _reproduce(cursor, release)
    results = gates.evaluate(cursor, release.id)
    closed = [result for result in results if result.state is GateState.FAILS]
    tally = [words] if (words := gates.tally(results)) else []
    unbuilt = {result.target for result in closed if result.gate == Gate.BUILDS}
    rows = [row for row in _attempts(cursor, release.id) if row["target"] in unbuilt]
    for outcomes, state in _SPOILED:
        spoiled = [row for row in rows if _weighed(release, row) in outcomes]
        if spoiled:
            _set_state(cursor, release.id, state, "; ".join([*(_sentence(row) for row in spoiled), *tally]))
            return
    reasons = [result.why for result in closed] + ([release.hold_reason] if release.hold_reason is not None else [])
    if reasons:
        _set_state(cursor, release.id, ReleaseState.HELD, f"held: {'; '.join([*reasons, *tally])}")
        return
    waiting = [result.why for result in results if result.state is GateState.WAITS]
    if waiting:
        _set_state(cursor, release.id, ReleaseState.BUILDING, "; ".join(["built", *waiting, *tally]))
        return
    _pass(cursor, release, requested_by=requested_by)


def _reproduce(cursor: Cursor, release: Release) -> None:
    """Have what was built of a (locked) release be built again, where its gates or its recipe ask for that."""
    awaited = Gate.REPRODUCIBLE in release.gates
    if awaited or release.recipe.get("reproducible") is True:
        subject = reproductions.Release(
            release.id, release.product, release.ref, release.commit, release.kind, release.recipe, release.channel
        )
        reproductions.begin(cursor, subject, awaited=awaited)


def _plan(database: Database, event: RefEvent, product: Product, plan: Plan, *, released: bool) -> Planned | None:
    """What the event becomes, or None after it was settled otherwise."""
    verdict = _not_a_release(event, product, released)
    if verdict is not None:
        ref_events.settle(database, [event.id], *verdict)
        _log_event(event, f"is {verdict[0]}: {verdict[1]}")
        return None
    try:
        planned = plan(event, product)
        if not planned.builds:
            raise InputError("the recipe has no targets")
    except (InputError, ProductError) as error:
        ref_events.settle(database, [event.id], RefEventState.REFUSED, str(error))
        _log_event(event, f"is refused: {error}")
    except InfrastructureError as error:
        ref_events.postpone(database, event.id, POSTPONE_SECONDS, str(error))
        _log_event(event, f"waits {POSTPONE_SECONDS:.0f} s: {error}")
    else:
        return planned
    return None


def _log_event(event: RefEvent, said: str) -> None:
    told = about(correlation=ref_events.correlation(event.id), product=event.product, ref=event.ref)
    _log.info("%s %s %s", event.product, event.ref, said, extra=told)


def _not_a_release(event: RefEvent, product: Product, released: bool) -> tuple[RefEventState, str] | None:
    if event.change is not RefChange.CREATED:
        return RefEventState.IGNORED, f"the ref was {event.change}: a release is never replaced"
    if released:
        return RefEventState.IGNORED, "the ref was released before: a release is never replaced"
    if product.removed_at is not None:
        return RefEventState.IGNORED, "the product was removed"
    problem = ref_events.name_problem(event.ref)
    if problem is not None:
        return RefEventState.REFUSED, problem
    required = product.signature_policy is SignaturePolicy.REQUIRED and event.kind is RefKind.TAG
    if required and event.signature is not SignatureState.GOOD:
        return RefEventState.REFUSED, f"a good signature is required, this one is: {event.signature}"
    return None


def _insert(database: Database, cursor: Cursor, planned: Sequence[tuple[RefEvent, Planned]]) -> list[Release]:
    """The rows of new releases: releases, builds, first attempts, and their events claimed."""
    rows = cursor.insert_many(_SQL["insert_many"], [_release_values(event, plan) for event, plan in planned])
    releases = [Release.from_row(row) for row in rows]
    plans = {event.id: plan for event, plan in planned}
    builds = [
        (release.id, build.target, build.phases) for release in releases for build in plans[release.ref_event_id].builds
    ]
    build_ids = [row["id"] for row in cursor.insert_many(_SQL["insert_builds"], builds)]
    if build_ids:
        cursor.execute(_SQL["insert_first_attempts"], builds=build_ids)
    dependencies.declare(cursor, {release.product: release.recipe.get("depends", ()) for release in releases})
    dependencies.wait(cursor, [release.id for release in releases])
    claimed = {release.ref_event_id for release in releases}
    ref_events.settle(database, claimed, RefEventState.CLAIMED, "")
    late = [event.id for event, _ in planned if event.id not in claimed]
    ref_events.settle(database, late, RefEventState.IGNORED, "the ref was released before")
    return releases


def _release_values(event: RefEvent, plan: Planned) -> tuple[object, ...]:
    return (
        event.product,
        event.ref,
        event.commit,
        event.kind,
        plan.version,
        event.id,
        plan.recipe,
        plan.recipe_digest,
        plan.channel,
        event.recorded_by,
        "waits for a worker",
        plan.hold_reason,
        plan.gates,
    )


def _pass(cursor: Cursor, release: Release, *, requested_by: str) -> None:
    _set_state(cursor, release.id, ReleaseState.PASSED, f"passed; waits for publication into {release.channel}")
    cursor.execute(_SQL["request_publication"], id=release.id, channel=release.channel, requested_by=requested_by)


def _set_state(cursor: Cursor, release_id: int, state: ReleaseState, why: str) -> None:
    cursor.execute(_SQL["set_state"], id=release_id, state=state, why=plain(why), open=state in _OPEN)


def _attempts(cursor: Cursor, release_id: int) -> list[Row]:
    """The latest attempt of each build."""
    return cursor.rows(_SQL["latest_attempts"], id=release_id)


def _outcome(row: Row) -> Outcome | None:
    return None if row["outcome"] is None else Outcome(row["outcome"])


def _weighed(release: Release, row: Row) -> Outcome | None:
    """The outcome of a build as it counts: a flaky one fails where the recipe says so."""
    outcome = _outcome(row)
    fails = outcome is Outcome.FLAKY and release.recipe.get("flaky") == Flaky.FAILS
    return Outcome.FAILED if fails else outcome


def _sentence(row: Row) -> str:
    return f"{row['target']}: {row['why'] or row['outcome']}"

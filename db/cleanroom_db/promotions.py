"""Promotions: the same bytes of a published release go into a further channel.

Nothing is built again. What the further channel demands is judged here, from rows, at the moment of asking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC

from cleanroom_base.errors import InputError, ProductError
from cleanroom_db import audit, gates, generations, releases
from cleanroom_db.connection import Database, plain
from cleanroom_db.gates import GateResult, NewWaiver
from cleanroom_db.publications import Publication
from cleanroom_db.releases import Release
from cleanroom_db.sql import load
from cleanroom_db.states import GateState, PublicationState

_SQL = load("publications")
SOURCE = "testing"


@dataclass(frozen=True)
class Promotion:
    """What was asked: the row that the publisher waits for (None: the channel has it already), and what the gates
    said."""

    publication: int | None
    gates: tuple[GateResult, ...]


class GatesClosed(ProductError):
    """A gate of the channel does not hold for the release."""


def promote(
    database: Database, release: Release, channel: str, demanded: Sequence[str], *, actor: str, reason: str
) -> Promotion:
    """Ask for a release that is in `testing` to go into `channel`; to ask twice is no harm.

    Raises InputError for a release that is not there or was withdrawn from the channel, GatesClosed when one of the
    gates in `demanded` does not hold.
    """
    if not reason.strip():
        raise InputError("a promotion needs a reason: it is kept in the audit log", hint='--reason "why"')
    with database.transaction() as cursor:
        release = releases.lock(cursor, release.id)
        name = f"{release.product} {release.ref}"
        there = {one.channel for one in generations.channels_of(database, release.id)}
        if channel in there:
            return Promotion(None, ())
        if SOURCE not in there:
            raise InputError(
                f"{name} is not in {SOURCE}, from where releases are promoted: it is {release.state}: {release.why}"
            )
        _require_not_withdrawn(database, release, channel)
        results = gates.decide_promotion(cursor, release.id, channel, demanded, actor)
        closed = [one for one in results if one.state in (GateState.FAILS, GateState.WAITS)]
        if closed:
            raise GatesClosed(
                f"{name} is not promoted to {channel}: {'; '.join(f'{one.gate}: {one.why}' for one in closed)}",
                hint=f"what {channel} demands stands in the recipe ([channels.{channel}]) and in gates.{channel};"
                f" 'cleanroom release waive ... --channel {channel}' lets it in without a gate",
            )
        cursor.execute(_SQL["promote"], release=release.id, channel=channel, requested_by=plain(actor))
        [publication] = [one for one in _publications(database, release.id) if one.channel == channel]
        detail = {"channel": channel, "gates": {one.gate: str(one.state) for one in results}}
        audit.record(database, actor, "release promote", name, reason=reason, detail=detail)
        return Promotion(publication.id, tuple(results))


def waive(database: Database, release: Release, channel: str, demanded: Sequence[str], new: NewWaiver) -> None:
    """Let a release be promoted into a channel without a gate, for some time. Raises as `gates.waive` does."""
    with database.transaction() as cursor:
        release = releases.lock(cursor, release.id)
        gates.waive_promotion(cursor, release.id, channel, demanded, new)
        detail = {"gate": new.gate, "channel": channel, "expires_at": new.expires_at.astimezone(UTC).isoformat()}
        name = f"{release.product} {release.ref}"
        audit.record(database, new.actor, "release waive", name, reason=new.reason, detail=detail)


def _require_not_withdrawn(database: Database, release: Release, channel: str) -> None:
    for one in _publications(database, release.id):
        if one.channel == channel and one.state is PublicationState.WITHDRAWN:
            raise InputError(
                f"{release.product} {release.ref} was withdrawn from {channel}: {one.why}",
                hint="what was withdrawn does not come back; a new version is needed",
            )


def _publications(database: Database, release_id: int) -> list[Publication]:
    with database.transaction() as cursor:
        return [Publication.from_row(row) for row in cursor.rows(_SQL["of_release"], release=release_id)]

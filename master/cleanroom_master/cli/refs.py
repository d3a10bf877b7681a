"""`cleanroom ref`: tags and commits as they were recorded."""

from __future__ import annotations

import argparse
import logging

from cleanroom_base import log_records
from cleanroom_base.log_records import about
from cleanroom_base.settings import Settings
from cleanroom_db import ref_events
from cleanroom_db.ref_events import RefEvent
from cleanroom_master.cli.frame import Commands, Context
from cleanroom_master.places import Places
from cleanroom_master.refs.record import record as record_ref

_log = logging.getLogger(__name__)

COLUMNS = ["id", "product", "kind", "ref", "change", "commit", "signature", "state", "recorded_at", "why"]


def register(commands: Commands) -> None:
    """Declare the verbs of `ref`."""
    ref = commands.noun("ref", "recorded tags and commits")
    recording = ref.verb(
        "record",
        record,
        "record a tag or a commit now, from a git hook for example",
        "cleanroom ref record hello v2.10",
    )
    recording.add_argument("product")
    recording.add_argument("ref", help="a tag's name, or the full id of a commit")
    listing = ref.verb("list", list_latest, "show the latest recorded refs", "cleanroom ref list hello")
    listing.add_argument("product", nargs="?")
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (default 50)")


def record(context: Context, arguments: argparse.Namespace) -> None:
    """Record it, and look it up in the product's repository."""
    _begin_log(context.settings)
    event = record_ref(context.settings, context.database, arguments.product, arguments.ref)
    told = about(correlation=ref_events.correlation(event.id), product=event.product, ref=event.ref)
    _log.info("%s %s was recorded at %s by a command", event.product, event.ref, event.commit, extra=told)
    context.emit(_shown(event), f"recorded {event.product} {event.ref} at {event.commit} as event {event.id}")


def _begin_log(settings: Settings) -> None:
    """Log beside the services what begins here: a hook's own output goes to whoever pushed."""
    try:
        stream = Places(settings).service_log("commands").open("a", encoding="utf-8")
    except OSError:
        # A hook may run as somebody who may not write there.
        return
    log_records.begin("command", stream)


def list_latest(context: Context, arguments: argparse.Namespace) -> None:
    """Show the latest events, newest first."""
    rows = [
        _shown(event) for event in ref_events.list_latest(context.database, arguments.product, limit=arguments.limit)
    ]
    context.rows(rows, COLUMNS, "nothing was recorded yet")


def _shown(event: RefEvent) -> dict[str, object]:
    return {
        "id": event.id,
        "product": event.product,
        "kind": event.kind,
        "ref": event.ref,
        "commit": event.commit,
        "previous_commit": event.previous_commit,
        "change": event.change,
        "tag_kind": event.tag_kind,
        "tagger": event.tagger,
        "signature": event.signature,
        "branch": event.branch,
        "tagged_at": event.tagged_at,
        "recorded_at": event.recorded_at,
        "recorded_by": event.recorded_by,
        "state": event.state,
        "why": event.why,
    }

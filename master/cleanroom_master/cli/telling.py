"""`cleanroom webhook` and `cleanroom notification`: what forges told us, and what we told others."""

from __future__ import annotations

import argparse
import getpass

from cleanroom_db import audit, notifications, webhooks
from cleanroom_db.states import NotificationState
from cleanroom_master.cli.frame import Commands, Context

_COLUMNS = ["id", "endpoint", "event", "state", "tries", "created_at", "problem"]
_RECEIVED = ["id", "forge", "event", "product", "received_at", "delivery"]


def register(commands: Commands) -> None:
    """Declare the verbs of `webhook` and of `notification`."""
    webhook = commands.noun("webhook", "webhooks that forges sent")
    listing = webhook.verb(
        "list", received, "show the webhooks that were taken lately", "cleanroom webhook list --product hello"
    )
    listing.add_argument("--product", help="only those about this one")
    listing.add_argument("--limit", type=_count, default=50, metavar="N", help="at most so many (default 50)")
    notification = commands.noun("notification", "messages to others about changes of state")
    sent = notification.verb(
        "list", listed, "show the latest messages and what came of them", "cleanroom notification list --state failed"
    )
    sent.add_argument("--state", choices=[str(state) for state in NotificationState], help="only those")
    sent.add_argument("--endpoint", help="only those for this one")
    sent.add_argument("--limit", type=_count, default=50, metavar="N", help="at most so many (default 50)")
    again = notification.verb(
        "retry", retry, "try a message again now", "cleanroom notification retry 42", about="It keeps its key."
    )
    again.add_argument("id", type=int, metavar="ID")
    notification.verb(
        "endpoints", told, "show whom this site tells of what, and check it", "cleanroom notification endpoints"
    )


def received(context: Context, arguments: argparse.Namespace) -> None:
    """Show webhooks, newest first."""
    found = webhooks.latest(context.database, arguments.product, limit=arguments.limit)
    rows = [{name: getattr(one, name) for name in (*_RECEIVED, "digest")} for one in found]
    context.rows(rows, _RECEIVED, "no webhook was taken lately; README.md says where forges send them")


def listed(context: Context, arguments: argparse.Namespace) -> None:
    """Show messages, newest first."""
    state = None if arguments.state is None else NotificationState(arguments.state)
    found = notifications.latest(context.database, state=state, endpoint=arguments.endpoint, limit=arguments.limit)
    names = (*_COLUMNS, "key", "not_before", "settled_at", "content")
    rows = [{name: getattr(one, name) for name in names} for one in found]
    context.rows(rows, _COLUMNS, "no messages; notifications.toml in the site directory says whom to tell of what")


def retry(context: Context, arguments: argparse.Namespace) -> None:
    """Have a message tried again."""
    with context.database.transaction():
        notifications.retry(context.database, arguments.id)
        audit.record(context.database, getpass.getuser(), "notification retry", str(arguments.id))
    context.emit({"retried": arguments.id}, f"message {arguments.id} is tried again")


def told(context: Context, _: argparse.Namespace) -> None:
    """Show the endpoints; what is secret is not told."""
    # What reads them takes a while to load, which other commands need not wait for.
    from cleanroom_master.notifications import endpoints

    rows = [
        {
            "name": one.name,
            "kind": str(one.kind),
            "products": one.products,
            "channels": one.channels,
            "events": [str(event) for event in one.events],
        }
        for one in endpoints.load(context.settings).values()
    ]
    columns = ["name", "kind", "products", "channels", "events"]
    context.rows(rows, columns, f"nobody is told of anything; see {context.settings.site / endpoints.FILE}")


def _count(word: str) -> int:
    number = int(word)
    if not 1 <= number <= 10_000:
        raise argparse.ArgumentTypeError("must be from 1 to 10000")
    return number

"""`cleanroom repository key`: the keys that sign the repository, and how one takes over from another."""

from __future__ import annotations

import argparse
import getpass

from cleanroom_base.errors import InputError
from cleanroom_db import requests, signing_keys
from cleanroom_db.requests import Request
from cleanroom_db.states import RequestKind
from cleanroom_master import key_keeping
from cleanroom_master.cli import asking
from cleanroom_master.cli.frame import Context, Noun

_COLUMNS = ["fingerprint", "state", "made_at", "expires_at", "retires_at", "retired_at"]
_DAYS = 3650.0


def register(repository: Noun) -> None:
    """Declare the verbs of `repository key`."""
    key = repository.noun("key", "the keys that sign the repository")
    key.verb("list", list_all, "show the keys that sign, and those that did", "cleanroom repository key list")
    change = key.verb(
        "rotate",
        rotate,
        "make a new key, and let it sign together with the old one for some time",
        'cleanroom repository key rotate --overlap 60 --reason "every two years"',
        about="Consumers who have either key go on during the overlap; before it ends they fetch the key file again, as"
        " the\nrepository's page says. The old key then signs no more; for rpm packages that it signed it stays"
        " published, apart.",
    )
    change.add_argument(
        "--overlap",
        type=_days,
        default=key_keeping.OVERLAP.days,
        metavar="DAYS",
        help=f"for so many days both sign (default {key_keeping.OVERLAP.days})",
    )
    change.add_argument("--lost", action="store_true", help="the old key is gone: the new one signs alone, at once")
    end = key.verb(
        "retire",
        retire,
        "end the overlap now: the old key signs no more",
        'cleanroom repository key retire --reason "it may be known to others"',
    )
    longer = key.verb(
        "extend",
        extend,
        "let the key that signs be valid for longer",
        'cleanroom repository key extend --reason "not yet rotated"',
        about="Consumers have to fetch the key file again before the old validity ends.",
    )
    for verb in (change, end, longer):
        verb.add_argument("--reason", required=True, help="is kept in the audit log, and shown in the history")
        asking.add_timeout(verb)


def _days(text: str) -> float:
    """A number of days, as argparse wants it."""
    number = float(text)
    if not 0 <= number <= _DAYS:
        raise ValueError
    return number


def list_all(context: Context, _: argparse.Namespace) -> None:
    """Show all keys, oldest first."""
    rows = [
        {
            "fingerprint": one.fingerprint,
            "state": one.state,
            "user_id": one.user_id,
            "made_at": one.made_at,
            "expires_at": one.expires_at,
            "signs_since": one.signs_since,
            "retires_at": one.retires_at,
            "retired_at": one.retired_at,
            "why": one.why,
        }
        for one in signing_keys.everyone(context.database)
    ]
    context.rows(rows, _COLUMNS, "no key signs yet; the publisher makes one when it starts")


def rotate(context: Context, arguments: argparse.Namespace) -> None:
    """Let a new key take over."""
    done = _ask(context, arguments, RequestKind.ROTATE_KEY, {"overlap_days": arguments.overlap}, forced=arguments.lost)
    until = "at once, alone" if arguments.lost else f"together with the old one for {arguments.overlap:g} days"
    _tell(context, done, f"the key {done.result.get('fingerprint')} signs {until}")


def retire(context: Context, arguments: argparse.Namespace) -> None:
    """Let the old key sign no more."""
    done = _ask(context, arguments, RequestKind.RETIRE_KEY)
    _tell(context, done, f"the key {done.result.get('fingerprint')} signs no more")


def extend(context: Context, arguments: argparse.Namespace) -> None:
    """Let the key be valid for longer."""
    done = _ask(context, arguments, RequestKind.EXTEND_KEY)
    _tell(context, done, f"the key {done.result.get('fingerprint')} is valid until {done.result.get('expires_at')}")


def _ask(
    context: Context,
    arguments: argparse.Namespace,
    kind: RequestKind,
    parameters: dict[str, object] | None = None,
    *,
    forced: bool = False,
) -> Request:
    if not arguments.reason.strip():
        raise InputError("a reason is needed: it is shown to whoever asks later", hint='--reason "why"')
    asked = requests.ask(
        context.database,
        kind,
        actor=getpass.getuser(),
        subject="the signing key",
        reason=arguments.reason,
        parameters=parameters,
        forced=forced,
        detail=parameters,
    )
    return asking.settled(context, asked, arguments.timeout, f"repository key {str(kind).partition('-')[0]}")


def _tell(context: Context, done: Request, line: str) -> None:
    result = {name: value for name, value in done.result.items() if name in ("fingerprint", "expires_at")}
    context.emit({**result, "generation": done.generation}, line)

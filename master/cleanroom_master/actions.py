"""What people do to releases, the repository and hosts by the web status: the same as by the command line.

Whoever acts says why, and says what he saw: when somebody else was quicker he is told so, and nothing is done. Every
action is in the audit log, a refused one too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from cleanroom_base.errors import InputError, ProductError
from cleanroom_base.settings import Settings
from cleanroom_db import audit, generations, promotions, releases, requests, services
from cleanroom_db.accounts import Holder
from cleanroom_db.audit import Entry
from cleanroom_db.connection import Cursor, Database
from cleanroom_db.releases import Release
from cleanroom_db.states import ReleaseState
from cleanroom_master import asking_back
from cleanroom_master.demands import demanded
from cleanroom_master.permissions import ACTIONS, Action, may, needed
from cleanroom_recipes import loader, names

# What the standing has to be as it was seen: what people did, the state, its reason. Holding is for emergencies.
_COMPARED = {"hold": 1, "retry": 2, "promote": 2, "withdraw": 2, "approve": 3, "waive": 3}
_SAID = {
    "retry": "had it tried again",
    "hold": "held it",
    "approve": "approved it",
    "waive": "waived a gate of it",
    "promote": "promoted it",
    "withdraw": "withdrew it",
}
REASON_LENGTH = 2000


class NotAllowed(InputError):
    """That needs another role."""


class Overtaken(InputError):
    """Somebody or something was quicker."""


@dataclass(frozen=True)
class Wish:
    """What somebody wants, beside the action itself.

    `seen` is the standing that he saw. `gate` and `expires_at` are of a waiver; `channel` is of a promotion, and of a
    withdrawal, where empty means all; `forced`: he was warned, and insists.
    """

    reason: str
    seen: str
    gate: str = ""
    expires_at: datetime | None = None
    channel: str = ""
    forced: bool = False


def standing(cursor: Cursor, release: Release) -> str:
    """How a release stands, for a form that is made now."""
    latest = audit.since(cursor, _name(release), 0)
    why = hashlib.sha256(f"{release.why}\0{release.hold_reason}\0{release.approved_by}".encode()).hexdigest()[:16]
    return f"{latest.id if latest else 0}.{release.state}.{why}"


def repository_standing(cursor: Cursor, current: int) -> str:
    """How the repository stands, for a form that is made now."""
    latest = requests.latest_rollback(cursor)
    return f"{latest.id if latest else 0}.{current}"


def act(
    database: Database, settings: Settings, who: Holder | None, action: Action, release_id: int, wish: Wish
) -> int | None:
    """Do something to a release, and return the publisher's request where it is one.

    Raises NotAllowed, Overtaken, InputError for what cannot be done, and ProductError where gates do not hold.
    """
    release = releases.get(database, release_id)
    with _noted(database, who, action, _name(release), wish.reason):
        actor = _allowed(who, action, release.product)
        _require_reason(wish)
        with database.transaction() as cursor:
            now = releases.lock(cursor, release_id)
            _require_as_seen(cursor, action, now, wish.seen)
            return _WAYS[action.word](database, settings, now, actor, wish)


def roll_back(database: Database, who: Holder | None, target: int, wish: Wish) -> int:
    """Ask the publisher to go back to a generation, and return its request. Raises as `act`."""
    action = ACTIONS["rollback"]
    with _noted(database, who, action, f"generation {target}", wish.reason):
        actor = _allowed(who, action, None)
        _require_reason(wish)
        with database.transaction() as cursor:
            latest = requests.lock_rollbacks(cursor)
            current = generations.current(database)
            if current is None or current.number == target:
                raise InputError("nothing is published yet" if current is None else "that is the current generation")
            if wish.seen != repository_standing(cursor, current.number):
                entry = wish.seen.partition(".")[0]
                if latest is not None and str(latest.id) != entry:
                    raise Overtaken(f"meanwhile {latest.actor} asked to go back to generation {latest.target}")
                raise Overtaken(f"meanwhile generation {current.number} was published")
            plan = asking_back.plan_rollback(database, current.number, target)
            return asking_back.ask_rollback(
                database,
                plan,
                current=current.number,
                target=target,
                actor=actor,
                reason=wish.reason,
                forced=wish.forced,
            ).id


def change_host(database: Database, who: Holder | None, action: Action, name: str, wish: Wish) -> None:
    """Have a host take work, or none. `wish.seen` is the state that was seen. Raises as `act`."""
    with _noted(database, who, action, name[:REASON_LENGTH], wish.reason):
        actor = _allowed(who, action, None)
        _require_reason(wish)
        with database.transaction():
            state = services.host(database, name).state
            if state != wish.seen:
                raise Overtaken(f"meanwhile the host became {state}")
            change = services.drain if action.word == "drain" else services.resume
            change(database, name, actor, wish.reason)


@contextmanager
def _noted(database: Database, who: Holder | None, action: Action, subject: str, reason: str) -> Iterator[None]:
    """Have what is refused be in the audit log; what is done is noted by what does it."""
    try:
        yield
    except (InputError, ProductError) as error:
        detail = {"why": error.message}
        actor = "anonymous" if who is None else who.name
        reason = reason[:REASON_LENGTH]
        audit.record(database, actor, action.name, subject, reason=reason, detail=detail, allowed=False)
        raise


def _allowed(who: Holder | None, action: Action, product: str | None) -> str:
    if who is None or not may(who, action, product):
        raise NotAllowed(f"{action.name} needs {needed(action, product)}", hint="an administrator can grant it")
    return who.name


def _require_reason(wish: Wish) -> None:
    if not wish.reason.strip():
        raise InputError("a reason is needed: it is kept in the audit log")
    if len(wish.reason) > REASON_LENGTH:
        raise InputError(f"a reason has at most {REASON_LENGTH} characters")


def _require_as_seen(cursor: Cursor, action: Action, release: Release, seen: str) -> None:
    compared = _COMPARED[action.word]
    now = standing(cursor, release)
    if now.split(".")[:compared] == seen.split(".")[:compared]:
        return
    entry = seen.partition(".")[0]
    latest = audit.since(cursor, _name(release), int(entry) if entry.isdecimal() and len(entry) < 19 else 0)
    if latest is not None:
        raise Overtaken(f"meanwhile {_told(latest)}; it is {release.state} now")
    raise Overtaken(f"meanwhile it became {release.state}{f': {release.why}' if release.why else ''}")


def _told(entry: Entry) -> str:
    what = _SAID.get(entry.action.rpartition(" ")[2], f"did: {entry.action}")
    return f"{entry.actor} {what}{f' ({entry.reason})' if entry.reason else ''}"


def _name(release: Release) -> str:
    return f"{release.product} {release.ref}"


def _retry(database: Database, _: Settings, release: Release, actor: str, wish: Wish) -> None:
    releases.retry(database, release.id, actor, wish.reason)


def _hold(database: Database, _: Settings, release: Release, actor: str, wish: Wish) -> None:
    releases.hold(database, release.id, actor, wish.reason)


def _approve(database: Database, _: Settings, release: Release, actor: str, wish: Wish) -> None:
    releases.approve(database, release.id, actor, wish.reason)


def _waive(database: Database, _: Settings, release: Release, actor: str, wish: Wish) -> None:
    if wish.expires_at is None:
        raise InputError("until when the waiver counts is needed")
    releases.waive(database, release.id, actor, wish.gate, reason=wish.reason, expires_at=wish.expires_at)


def _promote(database: Database, settings: Settings, release: Release, actor: str, wish: Wish) -> None:
    if not names.is_name(names.CHANNEL, wish.channel):
        raise InputError(f"{wish.channel[:100]!r} is no name of a channel")
    demands = demanded(settings, loader.from_json(release.recipe), wish.channel)
    asked = promotions.promote(database, release, wish.channel, demands, actor=actor, reason=wish.reason)
    if asked.publication is None:
        raise InputError(f"{_name(release)} is in {wish.channel} already")


def _withdraw(database: Database, _: Settings, release: Release, actor: str, wish: Wish) -> int:
    channel = wish.channel or None
    there = {one.channel for one in generations.channels_of(database, release.id)}
    # What waits for its publication is withdrawn before it is there.
    if release.state is not ReleaseState.PASSED and (not there or channel not in (None, *there)):
        raise InputError(f"{_name(release)} is in no channel{f' {channel}' if channel else ''}")
    return asking_back.ask_withdrawal(
        database, release, channel, actor=actor, reason=wish.reason, forced=wish.forced
    ).id


_Way = Callable[[Database, Settings, Release, str, Wish], int | None]
_WAYS: dict[str, _Way] = {
    "retry": _retry,
    "hold": _hold,
    "approve": _approve,
    "waive": _waive,
    "promote": _promote,
    "withdraw": _withdraw,
}

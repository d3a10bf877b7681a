"""Asking the publisher to take something back: what that comes to, and who has to insist."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cleanroom_base.errors import InputError
from cleanroom_db import generations, requests
from cleanroom_db.connection import Database
from cleanroom_db.generations import ChannelPackage, ChannelRelease, Difference
from cleanroom_db.releases import Release
from cleanroom_db.requests import Request
from cleanroom_db.states import RequestKind


class SecurityFix(InputError):
    """What is to be taken back mends a hole in security."""


@dataclass(frozen=True)
class Return:
    """What going back to a generation comes to. `kept_out`: it has them, but they were withdrawn since."""

    difference: Difference
    kept_out: tuple[ChannelPackage, ...]


def plan_rollback(database: Database, current: int, target: int) -> Return:
    """What a rollback would change. Raises InputError for a generation that consumers never saw."""
    generations.get(database, target)
    difference = generations.difference(database, current, target)
    # What is the same in both cannot be withdrawn: the current generation has it.
    kept_out = tuple(package for package in difference.added if package.withdrawn_by is not None)
    return Return(difference, kept_out)


def fixes(leaving: Iterable[ChannelRelease]) -> list[str]:
    """The releases among these that mend a hole in security, each in words."""
    return [f"{one.product} {one.ref} in {one.channel} ({one.evidence})" for one in leaving if one.evidence is not None]


def require_insistence(fixed: Sequence[str], *, forced: bool) -> None:
    """Raise SecurityFix when security fixes would be taken back by somebody who does not insist."""
    if fixed and not forced:
        raise SecurityFix(
            f"this would take security fixes back: {', '.join(fixed)}",
            hint="--force does it all the same; the warning is kept with the generation",
        )


def ask_rollback(
    database: Database, plan: Return, *, current: int, target: int, actor: str, reason: str, forced: bool
) -> Request:
    """Ask the publisher to go back. Raises SecurityFix for whoever does not insist, InputError without a reason."""
    fixed = fixes(plan.difference.releases_removed)
    require_insistence(fixed, forced=forced)
    return requests.ask(
        database,
        RequestKind.ROLLBACK,
        actor=actor,
        subject=f"generation {target}",
        reason=reason,
        target=target,
        forced=forced,
        detail={"from": current, "to": target, "security_fixes": fixed},
    )


def ask_withdrawal(
    database: Database, release: Release, channel: str | None, *, actor: str, reason: str, forced: bool
) -> Request:
    """Ask the publisher to take a release out of a channel, or (None) of all.

    Raises SecurityFix for whoever does not insist, InputError without a reason.
    """
    there = generations.channels_of(database, release.id)
    fixed = fixes(one for one in there if channel in (None, one.channel))
    require_insistence(fixed, forced=forced)
    return requests.ask(
        database,
        RequestKind.WITHDRAW,
        actor=actor,
        subject=f"{release.product} {release.ref}",
        reason=reason,
        release_id=release.id,
        channel=channel,
        forced=forced,
        detail={"channel": channel, "security_fixes": fixed},
    )

"""Messages are made of changes: each change once, within one transaction, for whoever wants to know.

Regressed and fixed are states of a product in a channel. A product that regressed and goes on failing is no news.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from cleanroom_db import notifications
from cleanroom_db.connection import Cursor, Database
from cleanroom_db.notifications import Compared, Moved, StateChange
from cleanroom_db.states import NotificationEvent, ReleaseState, Removal, RequestKind
from cleanroom_db.view import iso
from cleanroom_master.notifications.endpoints import Endpoint, ForgeEndpoint

# What is told of tests and of releases that came or went together: the first few.
_NAMES = 10
_RELEASES = 100
_JUDGED = (ReleaseState.PASSED, ReleaseState.FAILED, ReleaseState.HELD)
_BATCH = 100

Content = dict[str, Any]


def tell(database: Database, endpoints: Mapping[str, Endpoint], web_url: str) -> int:
    """Make the messages about all changes that nobody was told of; returns how many changes there were."""
    count = 0
    while True:
        with database.transaction() as cursor:
            changes = notifications.untold(cursor, limit=_BATCH)
            for change in changes:
                _Telling(cursor, change, endpoints.values(), web_url).all()
                notifications.told(cursor, change)
        count += len(changes)
        if len(changes) < _BATCH:
            return count


class _Telling:
    """The messages about one change."""

    def __init__(self, cursor: Cursor, change: StateChange, endpoints: Iterable[Endpoint], web_url: str) -> None:
        self._cursor, self._change, self._endpoints, self._web = cursor, change, tuple(endpoints), web_url

    def all(self) -> None:
        if self._change.generation is not None:
            self._generation(self._change.generation)
        else:
            self._release()

    def _release(self) -> None:
        change = self._change
        assert change.release_id is not None
        assert change.product is not None
        assert change.channel is not None
        for endpoint in self._endpoints:
            wants = endpoint.wants(change.product, change.channel, change.subscribed)
            if isinstance(endpoint, ForgeEndpoint) and wants and endpoint.repository(str(change.url)):
                self._add(endpoint, NotificationEvent.STATUS, {}, change.release_id)
        if change.state in _JUDGED and (event := self._standing(change.product, change.channel, change.release_id)):
            content = _content(event, change, self._web) | {
                "state": str(change.state),
                "why": change.why,
                "comparison": _comparison(notifications.compared(self._cursor, change.release_id)),
            }
            self._tell(event, content, change)

    def _standing(self, product: str, channel: str, release: int) -> NotificationEvent | None:
        """Whether the product's state in the channel is another one now."""
        builds = notifications.compared(self._cursor, release)
        worse = any(build.worse for build in builds)
        if not worse and self._change.state is not ReleaseState.PASSED:
            # It failed, but nothing is known to have passed before: that says neither.
            return None
        if not notifications.stand(self._cursor, product, channel, release, regressed=worse):
            return None
        return NotificationEvent.REGRESSED if worse else NotificationEvent.FIXED

    def _generation(self, number: int) -> None:
        generation, moved = notifications.switched(self._cursor, number)
        event = _event(generation.kind, moved)
        if event is NotificationEvent.PUBLISHED:
            for one in moved:
                if one.came:
                    content = _content(event, one, self._web) | {"generation": number, "actor": generation.actor}
                    self._tell(event, content | {"at": iso(self._change.at)}, one)
            return
        for endpoint in self._endpoints:
            own = [one for one in moved if endpoint.wants(one.product, one.channel, one.subscribed)]
            if event in endpoint.events and own:
                content = {
                    "event": str(event),
                    "generation": number,
                    "actor": generation.actor,
                    "reason": generation.reason,
                    "at": iso(self._change.at),
                    "url": f"{self._web}/repository",
                    "removed": [_moved(one) for one in own if not one.came][:_RELEASES],
                    "restored": [_moved(one) for one in own if one.came][:_RELEASES],
                }
                self._add(endpoint, event, content, None)

    def _tell(self, event: NotificationEvent, content: Content, subject: StateChange | Moved) -> None:
        for endpoint in self._endpoints:
            wants = endpoint.wants(str(subject.product), str(subject.channel), subject.subscribed)
            if event in endpoint.events and wants:
                self._add(endpoint, event, content, subject.release_id)

    def _add(self, endpoint: Endpoint, event: NotificationEvent, content: Content, release: int | None) -> None:
        notifications.add(self._cursor, self._change, endpoint.name, event, content, release=release)


def _event(kind: RequestKind | None, moved: Sequence[Moved]) -> NotificationEvent:
    removals = {one.removal for one in moved}
    if kind is RequestKind.WITHDRAW or Removal.WITHDRAWAL in removals:
        return NotificationEvent.WITHDRAWN
    if kind is RequestKind.ROLLBACK or Removal.ROLLBACK in removals:
        return NotificationEvent.ROLLED_BACK
    return NotificationEvent.PUBLISHED


def _content(event: NotificationEvent, subject: StateChange | Moved, web_url: str) -> Content:
    return {
        "event": str(event),
        "product": subject.product,
        "ref": subject.ref,
        "commit": subject.commit,
        "version": subject.version,
        "channel": subject.channel,
        "url": release_url(web_url, str(subject.product), str(subject.ref)),
        "at": iso(subject.at) if isinstance(subject, StateChange) else None,
    }


def release_url(web_url: str, product: str, ref: str) -> str:
    """Where the page of a release is."""
    return f"{web_url}/release/{quote(product, safe='')}/{quote(ref, safe='')}"


def _comparison(builds: Sequence[Compared]) -> Content:
    names = [name for build in builds for name in (build.names or {}).get("regressed", ())]
    return {
        "against": next((build.against for build in builds if build.against is not None), None),
        "regressed": sum(build.regressed or 0 for build in builds),
        "fixed": sum(build.fixed or 0 for build in builds),
        "phases": list(dict.fromkeys(phase for build in builds for phase in build.phases or ())),
        "names": list(dict.fromkeys(names))[:_NAMES],
        "targets": [build.target for build in builds if build.worse],
    }


def _moved(one: Moved) -> Content:
    return {"product": one.product, "ref": one.ref, "version": one.version, "channel": one.channel, "why": one.why}

"""The way of a tag from its recording into a repository, and what happens to it next: told from a release's view.

`release watch` and the web tell the same, because both ask here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cleanroom_db.states import GateState, ReleaseState, Removal

View = dict[str, Any]

_NOT_GOING_ON = (ReleaseState.FAILED, ReleaseState.CANCELLED, ReleaseState.WITHDRAWN)
# The stations that lie before the builds.
BEFORE = ("recorded", "claimed")


@dataclass(frozen=True)
class Station:
    """A part of the way.

    `state` is an outcome, a state of gates or publications, or one of `done`, `running`, `ahead`. `target` is empty
    where it is of the whole release; `start` and `seconds` None: it has not begun, or not ended. Of a phase, the first
    `reset_seconds` are those in which its guest was reset.
    """

    name: str
    state: str
    target: str = ""
    start: str | None = None
    seconds: float | None = None
    reset_seconds: float | None = None
    about: str = ""


def stations(view: View) -> list[Station]:
    """The way of a release: before its builds, then build by build, then what follows."""
    return [*_before(view), *(one for build in view["builds"] for one in _of_build(build)), *_after(view)]


def what_next(view: View, *, held: bool = False) -> str:
    """What happens to a release next, and who has to do something, in one sentence or two; `held`: by a person."""
    said = _NEXT[ReleaseState(view["state"])](view, f"{view['product']} {view['ref']}")
    return said.replace(_goes(view), "it is held until a person approves it") if held else said


def _goes(view: View) -> str:
    return f"it goes into {view['channel']}"


def _of_building(view: View, _: str) -> str:
    builds = view["builds"]
    after = f"then its gates are judged, and {_goes(view)}."
    unended = [build for build in builds if build["outcome"] is None]
    if not unended:
        waiting = [gate["why"] for gate in view["gates"] if gate["state"] == GateState.WAITS]
        return f"It goes on by itself once that is known: {'; '.join(waiting)}" if waiting else f"Now {after[5:]}"
    paused = next((build for build in unended if build["pauses"]), None)
    if paused is not None and len(unended) == 1:
        return f"Attempt {paused['attempt']} begins at {paused['not_before']}; {after}"
    if all(build["started_at"] is None for build in unended):
        return f"It is built as soon as a worker is free; {after}"
    return f"{_count(len(unended), 'build')} to go; {after}"


def _of_held(view: View, name: str) -> str:
    closed = [gate["gate"] for gate in view["gates"] if gate["state"] == GateState.FAILS]
    if closed == ["approval"]:
        return f"A person decides: cleanroom release approve {name} --reason WHY"
    if "builds" in closed:
        return f"A person decides: build it again (cleanroom release retry {name}), or release a new version."
    if closed:
        return (
            f"A person decides: mend it and release a new version, or waive {' and '.join(closed)}"
            f" (cleanroom release waive {name} GATE --reason WHY --expires TIME)."
        )
    return f"A person decides: cleanroom release approve {name} --reason WHY"


def _of_published(view: View, _: str) -> str:
    channels = " and ".join(one["channel"] for one in view["published"])
    return f"Consumers of {channels or view['channel']} get it with their next update."


def _of_withdrawn(view: View, _: str) -> str:
    if any(one["how"] == Removal.ROLLBACK for one in view["removed"]):
        return "It comes back with a rollback to a generation that has it."
    return "It does not come back; a new version is needed."


_NEXT: dict[ReleaseState, Callable[[View, str], str]] = {
    ReleaseState.WAITING: _of_building,
    ReleaseState.BUILDING: _of_building,
    ReleaseState.PASSED: lambda view, _: f"The publisher takes it into {view['channel']} with the next generation.",
    ReleaseState.PUBLISHED: _of_published,
    ReleaseState.FAILED: lambda _, name: (
        "Nothing more happens by itself. Mend it and tag a new version, or build it again:"
        f" cleanroom release retry {name}"
    ),
    ReleaseState.HELD: _of_held,
    ReleaseState.CANCELLED: lambda _, name: (
        f"Nothing more happens by itself. Build it again: cleanroom release retry {name}"
    ),
    ReleaseState.WITHDRAWN: _of_withdrawn,
}


def _before(view: View) -> Iterator[Station]:
    yield Station("recorded", "done", start=view["recorded_at"], about=f"by {view['requested_by']}")
    if view["claimed_at"] is not None:
        waited = _between(view["recorded_at"], view["claimed_at"])
        yield Station("claimed", "done", start=view["claimed_at"], seconds=waited, about="the master made it a release")


def _of_build(build: View) -> Iterator[Station]:
    target = build["target"]
    begun = build["started_at"]
    about = f"attempt {build['attempt']}" if build["attempt"] > 1 else ""
    if begun is None:
        state = "running" if build["outcome"] is None else build["outcome"]
        yield Station("waiting for a worker", state, target, build["queued_at"], None, about=about)
    else:
        waited = _between(build["queued_at"], begun)
        yield Station("waiting for a worker", "done", target, build["queued_at"], waited, about=about)
    seen = set()
    for phase in build["phases"]:
        seen.add(phase["name"])
        for one, name in ((phase, phase["name"]), *_replays(phase)):
            yield Station(
                name,
                one["outcome"] or "running",
                target,
                one["started_at"],
                one["seconds"] if one["seconds"] is not None else _between(one["started_at"], one["finished_at"]),
                one["reset_seconds"],
                one["why"],
            )
    if build["outcome"] is None:
        for name in build["planned"]:
            if name not in seen:
                yield Station(name, "ahead", target)


def _replays(phase: View) -> Iterator[tuple[View, str]]:
    for replay in phase["replays"]:
        yield replay, f"{phase['name']}, replay {replay['replay']}"


def _after(view: View) -> Iterator[Station]:
    yield _gates(view)
    gone = {one["channel"] for one in view["removed"]}
    for one in view["published"]:
        about = f"{one['channel']}, generation {one['generation']}"
        yield Station("published", "published", start=one["at"], about=about)
    for one in view["canaries"]:
        about = f"{one['channel']}, generation {one['generation']}: {one['said']}"
        yield Station("consumers", str(one["state"]), start=one["finished_at"], about=about)
    for one in view["removed"]:
        about = f"{one['channel']}, generation {one['generation']}: {one['why']}"
        yield Station("removed", str(one["how"]), start=one["at"], about=about)
    if not view["published"] and not gone and view["state"] not in _NOT_GOING_ON:
        state = "running" if view["state"] == ReleaseState.PASSED else "ahead"
        yield Station("published", state, about=view["channel"])


def _gates(view: View) -> Station:
    """All gates together: closed as soon as one is, and open once all are."""
    states = [gate["state"] for gate in view["gates"]]
    judged = [gate["evaluated_at"] for gate in view["gates"] if gate["evaluated_at"] is not None]
    told = ", ".join(f"{states.count(word)} {_WORDS[word]}" for word in _WORDS if word in states)
    if not judged:
        return Station("gates", "ahead", about=_count(len(states), "gate"))
    closed = "fails" in states
    state = "fails" if closed else "waits" if "waits" in states or None in states else "holds"
    return Station("gates", state, start=max(judged), about=told)


_WORDS = {"fails": "closed", "waits": "not known yet", "waived": "waived", "holds": "open"}


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _between(start: str | None, end: str | None) -> float | None:
    """The seconds between two times of a view."""
    if start is None or end is None:
        return None
    # What several machines' clocks say may be out of order.
    return max((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds(), 0.0)

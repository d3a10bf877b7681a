"""Where the time of a release went, from the record's own times. Pure, so that a test can check it.

A release's builds run side by side, so their times cannot be added up. What the release waited for is its
*critical path*: from the record of the tag to the claim, from there along the one build that ended last, and
from the verdict to the publication. On that path every moment belongs to exactly one of the parts below, so they
add up to the total. Our overhead is all of it that was not a command of the product's phases in a guest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

View = Mapping[str, Any]


@dataclass(frozen=True)
class Account:
    """The parts of a release's total, in seconds, in the order in which they come."""

    claim: float  # from the record of the tag to the claim of the event
    worker: float  # from the claim until a worker has the attempt
    source: float  # until the first phase begins: the commit's archive made and sent
    handover: float  # in all phases: what master and worker's program do around the phase
    reset: float  # in all phases: until a clean guest answers
    commands: float  # in all phases: the steps in the guests
    rest: float  # in all phases: opening the host, inputs in, artifacts out, the guest's end
    between: float  # between two phases, and until the attempt is closed
    publication: float  # from the verdict until consumers see it

    @property
    def total(self) -> float:
        """From the record of the tag to its publication."""
        return sum(float(getattr(self, field.name)) for field in fields(self))

    @property
    def overhead(self) -> float:
        """All but the commands."""
        return self.total - self.commands

    @property
    def without_resets(self) -> float:
        """The overhead that is no reset either."""
        return self.overhead - self.reset

    def row(self) -> dict[str, object]:
        """For a table."""
        parts = {field.name: round(getattr(self, field.name), 2) for field in fields(self)}
        return {
            "total": round(self.total, 2),
            "overhead": round(self.overhead, 2),
            "without_resets": round(self.without_resets, 2),
            **parts,
        }


def account(view: View) -> Account:
    """The account of a published release, as `release show` shows it; only first attempts are looked at.

    Raises ValueError for a release with a second attempt: its pause would be nobody's.
    """
    if any(build["attempt"] != 1 for build in view["builds"]):
        raise ValueError(f"{view['product']} {view['ref']} was tried again")
    build = critical(view)
    phases = build["phases"]
    begun = [moment(phase["started_at"]) for phase in phases]
    ended = [moment(phase["finished_at"]) for phase in phases]
    inside = sum(phase["seconds"] for phase in phases)
    reset = sum(phase["reset_seconds"] or 0.0 for phase in phases)
    commands = sum(phase["command_seconds"] for phase in phases)
    in_phases = sum(_seconds(*span) for span in zip(begun, ended, strict=True))
    finished = moment(view["finished_at"])
    return Account(
        claim=_seconds(moment(view["recorded_at"]), moment(view["claimed_at"])),
        worker=_seconds(moment(view["claimed_at"]), moment(build["started_at"])),
        source=_seconds(moment(build["started_at"]), begun[0]),
        handover=in_phases - inside,
        reset=reset,
        commands=commands,
        rest=inside - reset - commands,
        between=_seconds(begun[0], finished) - in_phases,
        publication=_seconds(finished, moment(view["published"][0]["at"])),
    )


def critical(view: View) -> View:
    """The build that ended last."""
    builds: list[View] = view["builds"]
    return max(builds, key=lambda build: moment(build["finished_at"]))


def phase_rows(view: View) -> list[dict[str, object]]:
    """The phases of the critical build, each with where its time went."""
    build = critical(view)
    rows = []
    for phase in build["phases"]:
        whole = _seconds(moment(phase["started_at"]), moment(phase["finished_at"]))
        reset = phase["reset_seconds"] or 0.0
        rows.append(
            {
                "release": f"{view['product']} {view['ref']}",
                "target": build["target"],
                "phase": phase["name"],
                "whole": round(whole, 2),
                "handover": round(whole - phase["seconds"], 2),
                "reset": round(reset, 2),
                "commands": round(phase["command_seconds"], 2),
                "rest": round(phase["seconds"] - reset - phase["command_seconds"], 2),
            }
        )
    return rows


def phase_overheads(views: Sequence[View]) -> dict[str, list[float]]:
    """By phase, what each run of it in a guest took beyond its commands, in seconds, in all builds of releases."""
    found: dict[str, list[float]] = {}
    for phase in (phase for view in views for build in view["builds"] for phase in build["phases"]):
        if phase["reset_seconds"] is not None:
            whole = _seconds(moment(phase["started_at"]), moment(phase["finished_at"]))
            found.setdefault(phase["name"], []).append(whole - phase["command_seconds"])
    return found


def commands_of_any_build(view: View) -> float:
    """Seconds in which a command of at least one of the release's builds ran: steps that overlap count once."""
    spans = sorted(
        (moment(step["started_at"]).timestamp(), moment(step["started_at"]).timestamp() + step["seconds"])
        for build in view["builds"]
        for phase in build["phases"]
        for step in phase["steps"]
        if step["seconds"] is not None
    )
    covered, reached = 0.0, float("-inf")
    for begin, end in spans:
        covered += max(end - max(begin, reached), 0.0)
        reached = max(reached, end)
    return covered


def moment(text: str) -> datetime:
    """A time of the record."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _seconds(begin: datetime, end: datetime) -> float:
    return (end - begin).total_seconds()

"""A bisection as people and scripts see it: how far it is, what it found, and on what that stands.

The form is a contract: keys are added, never renamed. Times are ISO 8601 in UTC, durations are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from cleanroom_base.errors import InputError
from cleanroom_db import bisections
from cleanroom_db.bisections import Bisection, Candidate, Probe
from cleanroom_db.connection import Database
from cleanroom_db.states import BisectionAxis, BisectionState, Verdict
from cleanroom_db.view import iso
from cleanroom_master.bisection.search import Search
from cleanroom_master.logs import LogStore

View = dict[str, Any]

# Of the log of the first bad one, and of suspects that could not be judged.
_LINES = 20
_LINE = 500
_SUSPECTS = 50
_WORDS = {Verdict.GOOD: "good", Verdict.BAD: "bad", Verdict.SKIPPED: "skip"}


def view(database: Database, logs: LogStore, bisection_id: int) -> View:
    """Everything about a bisection, as plain values. Raises InputError if there is none."""
    with database.transaction():
        bisection = bisections.get(database, bisection_id)
        candidates = bisections.candidates(database, bisection_id)
        probes = bisections.probes(database, bisection_id)
    suspects = [candidates[position] for position in bisection.suspects]
    first_bad = suspects[0] if bisection.state is BisectionState.FOUND else None
    return {
        **summary(bisection),
        "candidates": len(candidates) - 1,
        "rounds_left": _rounds_left(bisection, candidates, probes),
        "probes": [_probe(probe, candidates[probe.position]) for probe in probes],
        "suspects": [_candidate(one) for one in suspects[:_SUSPECTS]],
        "first_bad": None if first_bad is None else _candidate(first_bad),
        "evidence": None if first_bad is None else _evidence(database, logs, bisection, first_bad, probes),
    }


def summary(bisection: Bisection) -> View:
    """What a list says of a bisection."""
    ended = bisection.finished_at or datetime.now(UTC)
    names = "id product target axis good bad phase step test runs parallel state why requested_by"
    return {
        **{name: getattr(bisection, name) for name in names.split()},
        "created_at": iso(bisection.created_at),
        "finished_at": iso(bisection.finished_at),
        "seconds": round((ended - bisection.created_at).total_seconds(), 2),
    }


def git_log(database: Database, bisection_id: int) -> str:
    """What was found, in the form of `git bisect log`. Raises InputError where no commits were searched.

    Source of the format: git-bisect(1), "Bisect log and bisect replay".
    """
    bisection = bisections.get(database, bisection_id)
    if bisection.axis is not BisectionAxis.COMMIT:
        raise InputError(f"bisection {bisection_id} searched no commits, but {bisection.axis}")
    judged = [one for one in bisections.candidates(database, bisection_id) if one.verdict is not None]
    return write_git_log(judged, bisection.suspects[-1:])


def write_git_log(judged: Sequence[Candidate], decisive: Sequence[int]) -> str:
    """The log of candidates with verdicts, in the order in which they were judged, each line a command.

    Git takes the last bad one for the one to go on from: that one, at the position in `decisive`, comes last.
    """
    lines = ["git bisect start"]
    for one in sorted(
        judged, key=lambda one: (one.position in decisive, one.judged_at is None, one.judged_at, one.position)
    ):
        assert one.verdict is not None
        word = _WORDS[one.verdict]
        lines += [f"# {word}: [{one.commit}] {one.subject}", f"git bisect {word} {one.commit}"]
    return "\n".join(lines) + "\n"


def _rounds_left(bisection: Bisection, candidates: Sequence[Candidate], probes: Sequence[Probe]) -> int:
    if bisection.state is not BisectionState.RUNNING:
        return 0
    verdicts = {one.position: one.verdict for one in candidates if one.verdict is not None}
    running = [probe.position for probe in probes if probe.finished_at is None]
    return Search([one.parents for one in candidates]).decide(verdicts, running, bisection.parallel).rounds


def _candidate(one: Candidate) -> View:
    return {
        **{name: getattr(one, name) for name in ("position", "name", "commit", "author", "subject", "verdict", "why")},
        "dated_at": iso(one.dated_at),
    }


def _probe(probe: Probe, candidate: Candidate) -> View:
    ended = probe.finished_at
    # What is said of a candidate stands on the probe that decided it.
    decided = probe.verdict is not None and probe.verdict is candidate.verdict
    return {
        "trial": probe.trial_id,
        "position": probe.position,
        "name": candidate.name,
        "subject": candidate.subject,
        "run": probe.run,
        "verdict": probe.verdict,
        "why": candidate.why if decided else probe.why,
        "started_at": iso(probe.created_at),
        "seconds": None if ended is None else round((ended - probe.created_at).total_seconds(), 2),
    }


def _evidence(
    database: Database, logs: LogStore, bisection: Bisection, first_bad: Candidate, probes: Sequence[Probe]
) -> View:
    """What the first bad one's own probe says: the message of the case, and lines of the log about it."""
    trial = next(
        probe.trial_id for probe in probes if probe.position == first_bad.position and probe.verdict is Verdict.BAD
    )
    seen = bisections.seen(database, trial, bisection.criterion)
    return {
        "trial": trial,
        "criterion": str(bisection.criterion),
        "message": first_bad.why,
        "log_sha256": seen.log_sha256,
        "lines": [] if seen.log_sha256 is None else _lines(logs, seen.log_sha256, seen.case_line, bisection.test),
    }


def _lines(logs: LogStore, sha256: str, line: int | None, test: str | None) -> list[str]:
    """The lines of a log about a test: where it stands, or else the last one that names it, or else the end."""
    try:
        lines = logs.read(sha256).decode(errors="replace").splitlines()
    except InputError:
        return []
    named = [number for number, text in enumerate(lines, 1) if test is not None and test in text]
    place = line or (named[-1] if named else None)
    end = len(lines) if place is None else min(place + _LINES // 4, len(lines))
    return [text[:_LINE] for text in lines[max(end - _LINES, 0) : end]]

"""Releases with phases, steps and test cases, recorded as the master records them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from database_server import begin, record_tags

from cleanroom_db import attempts, generations, phases, publications, releases
from cleanroom_db.attempts import Lease
from cleanroom_db.connection import Database
from cleanroom_db.phases import StepResult, TestResult
from cleanroom_db.releases import Planned, PlannedBuild, Release
from cleanroom_recipes.model import Outcome

P, F, S, L = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED, Outcome.FLAKY
TARGET = "debian-12/deb"
ORDER = ("build", "install", "upgrade", "regress")
# A case's outcome, and its seconds where they matter.
Case = Outcome | tuple[Outcome, float]


def claimed(
    owner: Database, tag: str, *targets: str, product: str = "hello", channel: str = "testing", **planned: Any
) -> Release:
    """A release of a new tag, not built yet."""
    record_tags(owner, tag, product=product, commit=f"{abs(hash(tag)):040x}"[-40:])
    builds = tuple(PlannedBuild(target, ORDER) for target in targets or (TARGET,))
    release = releases.claim_next(owner, lambda *_: Planned(builds, {"name": product}, "digest", channel, **planned))
    assert release is not None
    return release


def build(
    owner: Database,
    release: Release,
    cases: Mapping[str, Case] | None = None,
    *,
    failing: Mapping[str, str] | None = None,
    outcome: Outcome | None = None,
    writer: Database | None = None,
) -> Lease:
    """The next build of a release runs: its phases pass but those in `failing`; the cases are of `regress`."""
    failing = failing or {}
    writer = writer or owner
    held = begin(writer, release)
    for position, name in enumerate(ORDER):
        how = F if name in failing else P
        phase = phases.start(writer, held, position, name)
        step = phases.start_step(writer, held, phase, 0, "tests" if name == "regress" else name)
        if name == "regress":
            phases.add_tests(writer, held, phase, "tests", _results(cases or {}))
        phases.finish_step(writer, held, step, StepResult(how, int(how is F), 1.0))
        phases.finish(writer, held, phase, how, why=failing.get(name, ""), seconds=2.0, command_seconds=1.0)
    ended = outcome or (F if failing else P)
    why = next((f"{name}: {why}" for name, why in failing.items()), "")
    attempts.finish(writer, held.attempt_id, held.owner, ended, why, attempts.RetryPolicy(limit=1))
    return held


def _results(cases: Mapping[str, Case]) -> list[TestResult]:
    return [
        TestResult(name, case, 0.1) if isinstance(case, Outcome) else TestResult(name, case[0], case[1])
        for name, case in cases.items()
    ]


def published(owner: Database, tag: str, cases: Mapping[str, Case] | None = None, *targets: str, **how: Any) -> Release:
    """A release that was built and published."""
    release = claimed(owner, tag, *targets, **how)
    for _ in targets or (TARGET,):
        build(owner, release, cases)
    publish(owner)
    return releases.get(owner, release.id)


def publish(owner: Database) -> None:
    """Everything that waits for publication leaves, as with the publisher."""
    waiting = publications.pending(owner)
    assert waiting
    generation = generations.prepare(
        owner, actor="publisher", reason="test", publications=[one.id for one in waiting], at_least=1
    )
    generations.switched(owner, generation)

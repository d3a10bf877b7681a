"""What the master does with rows: claims events, leases attempts, prepares phases, records what happens in them.

Everything here blocks and knows nothing of Buildbot; Buildbot's scheduler and steps call it in threads. An
attempt's rows are written only under its lease, so a build that was given up cannot write into a later truth.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cleanroom_base import health
from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.log_records import Value, about
from cleanroom_base.settings import Settings
from cleanroom_db import (
    attempts,
    bisections,
    clock,
    dependencies,
    dependents,
    disk,
    generations,
    phases,
    publications,
    ref_events,
    releases,
    reproductions,
    services,
    trials,
    unions,
    workers,
)
from cleanroom_db.attempts import Lease, RetryPolicy
from cleanroom_db.connection import Database
from cleanroom_db.listen import ATTEMPT, BISECTION, GENERATION, HOST, REF_EVENT, TRIAL, Listener
from cleanroom_db.phases import NewArtifact, StepResult, TestResult
from cleanroom_db.services import Guests
from cleanroom_db.states import TrialPurpose
from cleanroom_master import canaries, channel, consumer_page, housekeeping, needs, schedules
from cleanroom_master.bisection.driver import Driver
from cleanroom_master.conflicts import union
from cleanroom_master.conflicts.check import Checker
from cleanroom_master.conflicts.together import Upkeep, look_at
from cleanroom_master.conflicts.trying import Trying
from cleanroom_master.dependents import choose_due, demanding
from cleanroom_master.files import FileStore
from cleanroom_master.leftovers import take_over_logs
from cleanroom_master.logs import LogStore, OpenLog, log_name
from cleanroom_master.places import Places
from cleanroom_master.planning import Planner
from cleanroom_master.refs import contents, sources
from cleanroom_master.replays import NAMED, Replay
from cleanroom_recipes import names, protocol
from cleanroom_recipes.codec import from_plain, to_plain
from cleanroom_recipes.conditions import Conditions
from cleanroom_recipes.events import (
    Artifact,
    Event,
    Installed,
    Output,
    PhaseFinished,
    PhaseStarted,
    Reset,
    StartingState,
    StepFinished,
    StepStarted,
    Tests,
    Version,
)
from cleanroom_recipes.model import Gate, Input, Outcome, Recipe, RefKind, Report, Target
from cleanroom_recipes.plan import COMPARISON, PhasePlan, comparison, with_other_date, with_packages
from cleanroom_recipes.request import PhaseRequest, Repository
from cleanroom_workers import room

CHANNELS = (REF_EVENT, ATTEMPT, TRIAL, BISECTION, GENERATION, HOST)
# Events that are claimed in one transaction, and attempts that Buildbot is asked for at a time: enough that no
# worker waits, few enough that ten thousand waiting events do not fill Buildbot's memory.
_BATCH = 200
# A turn may have ten thousand events to claim, or packages to look at together, in seconds.
_LONGEST_TURN = 900.0
_ASKED = 50
# Test cases that become rows in one transaction: each is a commit, and an event has few hundred.
_CASES_AT_ONCE = 5000
# A phase's own limit is watched by the worker; the master ends a command that outlives it by this much, in seconds.
_PATIENCE = 300.0
# What is on the file system whose room is looked at.
STATE = "state"
_ARTIFACTS = "artifacts"
_CANDIDATES = "candidates"
# Trials of what is published as it was published.
_OF_PUBLISHED = (TrialPurpose.DEPENDENT, TrialPurpose.NIGHTLY)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HostReport:
    """What a host says of itself."""

    isolations: tuple[str, ...]
    processors: int
    memory_mib: int
    places: int
    ready: int
    running: int


@dataclass(frozen=True)
class DueAttempt:
    """An attempt that Buildbot is to be asked for."""

    id: int
    number: int
    product: str
    url: str
    ref: str
    commit: str
    builder: str


@dataclass(repr=False)
class Job:
    """A leased attempt: what it builds, and how its phases ended so far.

    `subject` is what is built: a release, or a trial under `conditions` of its own.
    """

    lease: Lease
    subject: releases.Release | trials.Trial
    conditions: Conditions
    target: str
    recipe: Recipe
    plans: Mapping[str, PhasePlan]
    artifact_limit: int
    commit_time: datetime | None = None
    outcomes: dict[str, tuple[Outcome, str]] = field(default_factory=dict)
    # By phase, the digests of the published packages that it began with.
    beginnings: dict[str, frozenset[str]] = field(default_factory=dict)
    spoiled: str | None = None
    # The directory on the worker, in the build's own, that has the artifacts which count.
    artifacts: str = _ARTIFACTS
    # Of the ref event that all of this is for.
    correlation: str | None = None

    def __repr__(self) -> str:
        # Buildbot writes a step's arguments into its log, again and again.
        return f"<attempt {self.attempt} of {self.subject.product} {self.subject.ref} {self.target}>"

    @property
    def attempt(self) -> int:
        """The attempt's id."""
        return self.lease.attempt_id

    @property
    def product(self) -> str:
        """The product's name."""
        return self.subject.product

    def about(self, **more: Value | None) -> dict[str, dict[str, Value]]:
        """What log records of it are about."""
        is_release = isinstance(self.subject, releases.Release)
        return about(
            correlation=self.correlation,
            product=self.product,
            ref=self.subject.ref,
            release=self.subject.id if is_release else None,
            trial=None if is_release else self.subject.id,
            target=self.target,
            attempt=self.attempt,
            **more,
        )

    @property
    def phases(self) -> tuple[str, ...]:
        """The names of the phases in their order."""
        return tuple(self.plans)

    def verdict(self) -> tuple[Outcome, str]:
        """How the attempt ended, and why in one sentence."""
        if self.spoiled is not None:
            return Outcome.INFRASTRUCTURE, self.spoiled
        for blamed in (Outcome.INFRASTRUCTURE, Outcome.FAILED, Outcome.REGRESSED, Outcome.CANCELLED, Outcome.FLAKY):
            for name, (outcome, why) in self.outcomes.items():
                if outcome is blamed:
                    return outcome, f"{name}: {why or outcome}"
        missing = [name for name in self.plans if name not in self.outcomes]
        if missing:
            return Outcome.INFRASTRUCTURE, f"the build was interrupted before phase {missing[0]}"
        return Outcome.PASSED, ""


class Dispatch:
    """The master's work with rows."""

    def __init__(self, settings: Settings, database: Database, listener: Listener) -> None:
        self._settings = settings
        self._database = database
        self._listener = listener
        self._planner = Planner(settings)
        self._bisections = Driver(settings, database, self._planner)
        self._policy = RetryPolicy.of(settings)
        self._places = Places(settings)
        self.logs = LogStore(self._places.logs)
        self.files = FileStore(self._places.artifacts)
        self._checker = Checker.of(settings, database)
        self._upkeep = Upkeep(database, self._checker)
        self._trying = Trying(database, self._checker)
        self._housekeeping = housekeeping.occasion(settings, "master")
        self.name = f"master@{socket.gethostname()}"
        self.lease_seconds: float = settings.number("master.lease")
        # The hosts that take no work, as they were at the latest look.
        self.closed_hosts: frozenset[str] = frozenset()

    def take_over(self) -> None:
        """Give up what an earlier master of this name had begun: it works on nothing any more."""
        attempts.abandon(self._database, f"{self.name}/", "the master was restarted", self._policy)
        take_over_logs(self._database, self.logs)
        self._bisections.take_over()
        for left in (self._places.incoming, self._places.sources):
            shutil.rmtree(left, ignore_errors=True)

    def wake(self) -> None:
        """End a wait at once."""
        self._listener.interrupt()

    def wait(self) -> None:
        """Wait until there may be something to do: a notification, or the poll interval."""
        self._listener.wait(self.pause)

    @property
    def pause(self) -> float:
        """How long `wait` waits at most, in seconds."""
        return self._settings.number("master.poll")

    def begin_pulse(self) -> health.Pulse:
        """Have this process answer whether it is well; for the one that really is the master."""
        return health.Server.begin(self._settings, "master", patience=_LONGEST_TURN)

    def turn(self) -> list[DueAttempt]:
        """Give up what fell silent, claim what was recorded, and say which attempts are due: none without room."""
        now = self._room()
        clock.heed(self._database, lease=self.lease_seconds)
        attempts.expire(self._database, self._policy)
        self.look_at_hosts()
        plan = demanding(self._planner.plan, self._database, self._settings.whole("master.dependents"))
        while True:
            claimed = releases.claim_batch(self._database, plan, limit=_BATCH)
            for release in claimed.releases:
                _log.info("%s %s became a release, at %s", *_named(release), release.commit, extra=_about(release))
            if claimed.events < _BATCH:
                break
        self._bisections.turn()
        self._upkeep.turn()
        self._trying.turn()
        canaries.begin_due(self._database)
        choose_due(self._database, self._planner, self._settings)
        schedules.run_due(self._database, self._planner, self._settings, datetime.now(UTC))
        if now.low:
            return []
        take_over_logs(self._database, self.logs)
        return [self._due(work) for work in attempts.due(self._database, limit=_ASKED, trials=self._trials)]

    def look_at_hosts(self) -> frozenset[str]:
        """Which hosts take no work; those of them that have none are drained from now on."""
        self.closed_hosts = services.settle(self._database)
        return self.closed_hosts

    def host_seen(self, name: str, said: str, processors: int) -> None:
        """A host is connected; `said` is its own report (see `cleanroom_workers.report`), empty if there is none."""
        try:
            told = from_plain(HostReport, json.loads(said), what="the report of a host") if said else None
        except (ValueError, InputError):
            told = None
        if told is None:
            services.host_seen(self._database, name, (), max(processors, 1), 1)
            return
        guests = Guests(told.places, told.ready, told.running)
        services.host_seen(
            self._database, name, told.isolations, max(told.processors, 1), max(told.memory_mib, 1), guests
        )

    @property
    def low(self) -> bool:
        """Whether there is too little free disk to begin anything: neither an attempt nor a phase of one."""
        return room.look(self._settings).low

    def _room(self) -> room.Room:
        """How much room there is now; that is noted for whoever asks why nothing begins."""
        found = room.look(self._settings)
        disk.note(self._database, STATE, free=found.free, total=found.total, least=found.least)
        return found

    def worker_attached(self, name: str, version: int) -> None:
        """A worker came; whoever asks is told which version it speaks."""
        workers.attached(self._database, name, version, protocol.refusal(version) or "")

    def keep_house(self) -> list[housekeeping.Removed]:
        """Remove what the master keeps no more, if it is time; takes up to minutes, and may be killed."""
        if not self._housekeeping.due():
            return []
        return housekeeping.master(self._settings, self._database, remove=True)

    @property
    def _trials(self) -> int:
        """How many attempts of trials may be worked on at once."""
        return self._settings.whole("master.trials") or max(1, self._settings.whole("worker.parallel") // 2)

    def _due(self, work: attempts.Work) -> DueAttempt:
        subject = self._subject(work)
        return DueAttempt(
            work.id,
            work.number,
            subject.product,
            str(subject.recipe.get("url", "")),
            subject.ref,
            subject.commit,
            builder_name(subject.product, work.target, self._lane(work)),
        )

    def _lane(self, work: attempts.Work) -> int:
        return 0 if work.trial_id is None else bisections.lane(self._database, work.trial_id)

    def _subject(self, work: attempts.Work) -> releases.Release | trials.Trial:
        """What an attempt is of."""
        if work.trial_id is not None:
            return trials.get(self._database, work.trial_id)
        assert work.release_id is not None
        return releases.get(self._database, work.release_id)

    def lease(self, attempt: int, owner: str, worker: str, url: str) -> Job | None:
        """Begin to work on an attempt; None if another build does, if it is closed, or if the disk has no room."""
        if self.low or not attempts.lease(self._database, attempt, owner, self.lease_seconds):
            return None
        held = Lease(attempt, owner)
        attempts.describe(self._database, held, worker=worker, buildbot_url=url)
        work = attempts.get(self._database, attempt)
        subject = self._subject(work)
        plain = subject.conditions if isinstance(subject, trials.Trial) else {}
        conditions = from_plain(Conditions, plain, what="the conditions of the trial")
        recipe = self._planner.recipe(subject.recipe)
        plans = self._plans(subject, recipe, Target.parse(work.target))
        job = Job(
            held,
            subject,
            conditions,
            work.target,
            recipe,
            {name: with_packages(plans[name], conditions.packages) for name in work.phases if name in plans},
            self._settings.whole("worker.artifact_limit"),
            correlation=self._correlation(subject),
        )
        _log.info("attempt %d of %s begins at %s", work.number, _of(job), worker, extra=job.about(build=work.build_id))
        return job

    def _correlation(self, subject: releases.Release | trials.Trial) -> str:
        """What log records of a subject have in common with those of the release that waits for it, if one does."""
        if isinstance(subject, trials.Trial):
            if subject.subject is None:
                return f"trial-{subject.id}"
            subject = releases.get(self._database, subject.subject)
        return ref_events.correlation(subject.ref_event_id)

    def _plans(self, subject: releases.Release | trials.Trial, recipe: Recipe, target: Target) -> dict[str, PhasePlan]:
        """The phases that there are of a release or a trial on a target."""
        if isinstance(subject, trials.Trial) and subject.purpose is TrialPurpose.UNION:
            # What is installed is of many products: the recipe of one of them does not say how.
            return {union.PHASE: union.phase(target)}
        if isinstance(subject, trials.Trial) and subject.purpose is TrialPurpose.CANARY:
            return canaries.plans(self._database, subject, recipe, target)
        plans = {plan.name: plan for plan in self._planner.phases(recipe, target)}
        if recipe.vary_date and isinstance(subject, trials.Trial) and subject.conditions.get("varied") is True:
            plans = {name: with_other_date(plan) for name, plan in plans.items()}
        return {**plans, COMPARISON: comparison(recipe, target)}

    def renew(self, job: Job) -> bool:
        """Keep the lease; False if it is lost."""
        return attempts.renew(self._database, job.attempt, job.lease.owner, self.lease_seconds)

    def source(self, job: Job) -> Path:
        """An archive of exactly the recorded commit; the caller removes it."""
        self._places.sources.mkdir(parents=True, exist_ok=True)
        destination = self._places.sources / f"{job.attempt}.tar"
        job.commit_time = contents.commit_time(self._settings, job.product, job.subject.commit)
        return sources.archive(self._settings, job.product, job.subject.commit, destination)

    def begin_phase(self, job: Job, name: str) -> PhaseRun:
        """Record that a phase begins, and say what its worker needs."""
        position = list(job.plans).index(name)
        row = phases.start(self._database, job.lease, position, name)
        _log.info("phase %s of %s begins", name, _of(job), extra=job.about(phase=name))
        return PhaseRun(self, job, job.plans[name], row)

    def begin_replay(self, job: Job, plan: PhasePlan, replay: Replay, *, keeps: bool) -> PhaseRun:
        """Record that a phase is run again, by a plan that may be smaller than its own; `keeps` its artifacts."""
        position = list(job.plans).index(plan.name)
        row = phases.start(self._database, job.lease, position, plan.name, replay=replay.number, alone=replay.alone)
        return PhaseRun(self, job, plan, row, replay=replay, keeps=keeps)

    def replays_of(self, job: Job) -> int:
        """How often a phase of a job whose tests failed is run again: its recipe's wish within the site's limit."""
        return min(job.recipe.replays, self._settings.whole("master.replays"))

    def spoil(self, job: Job, why: str) -> None:
        """The surroundings spoiled an attempt before one of its phases could."""
        _log.warning("%s is spoiled: %s", _of(job), why, extra=job.about())
        job.spoiled = why

    def finish(self, job: Job) -> None:
        """Close an attempt with what its phases say; its release is judged in the same transaction."""
        outcome, why = job.verdict()
        self._look_for_conflicts(job, outcome)
        try:
            attempts.finish(self._database, job.attempt, job.lease.owner, outcome, why, self._policy)
        except attempts.LeaseLost:
            # It was cancelled, or taken away while we were cut off: whoever did that has written its end.
            _log.warning("%s was cancelled or taken away", _of(job), extra=job.about())
            return
        _log.info("%s ended: %s%s", _of(job), outcome, f": {why}" if why else "", extra=job.about())
        if isinstance(job.subject, releases.Release):
            now = releases.get(self._database, job.subject.id)
            _log.info("%s %s is %s: %s", *_named(now), now.state, now.why, extra=_about(now))
        # Its release may wait for something that the next turn has to begin.
        self.wake()

    def _look_for_conflicts(self, job: Job, outcome: Outcome) -> None:
        """Look at what a build made together with its channel, if it may leave; what fails is done by the publisher."""
        release = job.subject
        if not isinstance(release, releases.Release) or Gate.NO_CONFLICTS not in release.gates:
            return
        if outcome in (Outcome.PASSED, Outcome.FLAKY) and self.renew(job):
            with contextlib.suppress(InfrastructureError):
                look_at(self._database, self._checker, release.id, release.channel, job.target)

    def previous(self, job: Job, channel: str | None) -> list[generations.ChannelPackage]:
        """The packages of the job's product that a channel, or else its own, publishes now for the same target."""
        return generations.published_of(
            self._database, product=job.product, target=job.target, channel=channel or job.subject.channel
        )

    def artifacts(self, job: Job) -> list[tuple[Path, str]]:
        """What a trial tests that it did not build: files with their names.

        These are the artifacts of the published release, or all packages that are installed together. Raises
        InfrastructureError when one of those is gone.
        """
        subject = job.subject
        if isinstance(subject, trials.Trial) and subject.purpose is TrialPurpose.UNION:
            members = unions.members(self._database, subject.id, job.target)
            return [(self._checker.kept(one.sha256, one.published), one.file) for one in members]
        if not isinstance(subject, trials.Trial) or subject.purpose not in _OF_PUBLISHED:
            return []
        if any(plan.makes_artifacts for plan in job.plans.values()):
            return []
        release = releases.find(self._database, job.product, subject.ref)
        found = publications.files(self._database, release.id)
        return [(self.files.path(one.sha256), one.file) for one in found if one.target == job.target]

    def candidates(self, job: Job) -> list[tuple[Path, str]]:
        """The packages of another product's release with which a dependent one is tried: files with their names."""
        subject = job.subject
        if not isinstance(subject, trials.Trial) or subject.purpose is not TrialPurpose.DEPENDENT:
            return []
        assert subject.subject is not None
        found = dependents.candidates(self._database, subject.subject, Target.parse(job.target).image)
        return [(self.files.path(sha256), file) for file, sha256 in found]

    def repository(self, job: Job) -> Repository | None:
        """What is published now in the channel into which the job's product goes; None: nothing yet.

        A consumer reads it on the page. Raises InfrastructureError where that says nothing of it.
        """
        if isinstance(job.subject, trials.Trial) and job.subject.purpose is TrialPurpose.CANARY:
            url = self._settings.repository_url
            return consumer_page.published(self._places.published, url, job.subject.channel, Target.parse(job.target))
        return channel.published(self._places.published, job.subject.channel, Target.parse(job.target).image)

    def earlier(self, job: Job, plan: PhasePlan) -> list[tuple[str, str]]:
        """The files, with their digests, that a phase is given as what was there before it.

        Those are what is published now; to a comparison, the files of the release that the trial made otherwise.
        """
        if plan.name == COMPARISON and isinstance(job.subject, trials.Trial):
            found = reproductions.originals(self._database, job.subject.id, job.attempt)
            return [(one.file, one.sha256) for one in found]
        return [(package.file, package.built_sha256) for package in self.previous(job, plan.channel)]

    @property
    def database(self) -> Database:
        """The record."""
        return self._database

    @property
    def places(self) -> Places:
        """Where files are."""
        return self._places


def _of(job: Job) -> str:
    return f"{job.subject.product} {job.subject.ref} on {job.target}"


def _named(release: releases.Release) -> tuple[str, str]:
    return (release.product, release.ref)


def _about(release: releases.Release) -> dict[str, dict[str, Value]]:
    """What log records of a release are about."""
    return about(
        correlation=ref_events.correlation(release.ref_event_id),
        product=release.product,
        ref=release.ref,
        channel=release.channel,
        release=release.id,
    )


def builder_name(product: str, target: str, lane: int = 0) -> str:
    """The name of the builder of one product on one target, as people see it in Buildbot's pages.

    A builder runs one build at a time on a worker. Probes of a bisection run beside each other: each on a lane of its
    own, which count from 1.
    """
    return f"{product} {target} probe {lane}" if lane else f"{product} {target}"


@dataclass
class Seen:
    """What a phase told of itself that a replay of it needs; the first names of failed cases, by step."""

    image_digest: str | None = None
    installed: str | None = None
    failed_step: str | None = None
    failed_cases: dict[str, list[str]] = field(default_factory=dict)


class PhaseRun:
    """One phase that runs on a worker: what to send, and what to do with what comes back.

    Paths on the worker are relative to the build's work directory there. A `replay` of a phase says nothing of the
    attempt by itself; its artifacts are brought home only if it `keeps` them.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        job: Job,
        plan: PhasePlan,
        row: int,
        *,
        replay: Replay | None = None,
        keeps: bool = True,
    ) -> None:
        self._dispatch = dispatch
        self._database = dispatch.database
        self._job = job
        self._plan = plan
        self._row = row
        self._steps: dict[str, tuple[int, OpenLog]] = {}
        self._artifacts: list[Artifact] = []
        self._finished: PhaseFinished | None = None
        # Of the step whose tests were told last, those that are not rows yet.
        self._told: tuple[str, list[TestResult]] = ("", [])
        self._begun = time.monotonic()
        self._replay = replay
        self._keeps = keeps
        self.seen = Seen()
        self.ended: tuple[Outcome, str] | None = None
        self.label = f"{plan.name}-replay-{replay.number}" if replay else plan.name
        self.output = _ARTIFACTS if plan.makes_artifacts and not replay else f"output-{self.label}"
        self.incoming = dispatch.places.incoming / f"{job.attempt}-{self.label}"
        self.longest = plan.timeout + _PATIENCE
        # Phases begin with different packages, and the build's directory on the worker is one for all of them.
        self._before = f"previous-{plan.name}"
        # A replay finds there what the phase itself was given.
        self.previous = [] if replay else self._previous()
        of_trial = self._of_trial()
        self.downloads = [] if replay else self.previous + of_trial
        given = {destination.partition("/")[0] for _, destination in self.previous + of_trial}
        self.directories = sorted({self.output, *given, *([self._before] if Input.PREVIOUS in plan.inputs else [])})

    @property
    def row(self) -> int:
        """The id of its row."""
        return self._row

    @property
    def plan(self) -> PhasePlan:
        """What is run."""
        return self._plan

    @property
    def job(self) -> Job:
        """The attempt that it is part of."""
        return self._job

    @property
    def seconds(self) -> float:
        """How long it took, if it has ended; until now, if not."""
        return self._finished.seconds if self._finished is not None else time.monotonic() - self._begun

    def _previous(self) -> list[tuple[Path, str]]:
        if Input.PREVIOUS not in self._plan.inputs:
            return []
        found = self._dispatch.earlier(self._job, self._plan)
        self._job.beginnings[self._plan.name] = frozenset(sha256 for _, sha256 in found)
        return [(self._dispatch.files.path(sha256), f"{self._before}/{file}") for file, sha256 in found]

    def _of_trial(self) -> list[tuple[Path, str]]:
        """What a trial is given of what was built before it."""
        wants = Input.ARTIFACTS in self._plan.inputs
        artifacts = self._dispatch.artifacts(self._job) if wants else []
        candidates = self._dispatch.candidates(self._job)
        return [
            *((file, f"{_ARTIFACTS}/{name}") for file, name in artifacts),
            *((file, f"{_CANDIDATES}/{name}") for file, name in candidates),
        ]

    def request(self, directory: Path, version: int = protocol.VERSION) -> Any:
        """The request for a worker of that version, as JSON; `directory` is the build's work directory there."""
        return protocol.for_worker(to_plain(self._request(directory)), version)

    def _request(self, directory: Path) -> PhaseRequest:
        job, plan = self._job, self._plan
        assert job.commit_time is not None
        return PhaseRequest(
            product=job.product,
            ref=job.subject.ref,
            kind=job.subject.kind,
            commit=job.subject.commit,
            commit_time=job.commit_time,
            expected_version=(
                names.version_of_tag(job.subject.ref, job.recipe.versions, name=job.product)
                if job.subject.kind is RefKind.TAG
                else None
            ),
            target=Target.parse(job.target),
            attempt=job.attempt,
            phase=plan,
            source=directory / "source.tar" if Input.SOURCE in plan.inputs or plan.condition else None,
            artifacts=directory / job.artifacts if Input.ARTIFACTS in plan.inputs else None,
            previous=directory / self._before if Input.PREVIOUS in plan.inputs else None,
            output=directory / self.output,
            conditions=self._conditions(),
            repository=self._dispatch.repository(job),
            candidates=directory / _CANDIDATES if _CANDIDATES in self.directories else None,
            installed=self._replay.installed if self._replay else None,
            correlation=job.correlation,
        )

    def _conditions(self) -> Conditions:
        if self._replay is None:
            return self._job.conditions
        return replace(self._job.conditions, image_digest=self._replay.image_digest)

    @property
    def needless(self) -> str | None:
        """Why there is nothing to do in this phase, where that is known without the source."""
        condition = self._plan.condition
        if condition is None or condition.source:
            return None
        return self._known_beginning() if condition.previous and self.previous else condition.why_not

    def _known_beginning(self) -> str | None:
        """Why a phase for one channel would do again what an earlier one did, if so."""
        channel, beginnings = self._plan.channel, self._job.beginnings
        for name in beginnings if channel else ():
            if name != self._plan.name and beginnings[name] == beginnings[self._plan.name]:
                return f"{channel} publishes the packages that {name} begins with"
        return None

    def skip(self, why: str) -> Outcome:
        """End a phase in which there is nothing to do, without a guest and without a worker's program."""
        return self._end(Outcome.SKIPPED, why, time.monotonic() - self._begun, 0.0)

    @property
    def artifacts(self) -> bool:
        """Whether there are files to be brought from the worker."""
        return self._keeps and bool(self._artifacts)

    def record(self, events: Iterable[Event]) -> None:
        """Make rows and log lines of events. Raises LeaseLost."""
        for event in events:
            if not isinstance(event, Tests):
                self._write_tests()
            match event:
                case PhaseStarted() | Reset() | StartingState():
                    self._state(event)
                case StepStarted():
                    step = phases.start_step(self._database, self._job.lease, self._row, event.position, event.step)
                    log = self._dispatch.logs.open(self._log_name(event.step))
                    self._steps[event.step] = (step, log)
                case Output():
                    if event.step in self._steps:
                        self._steps[event.step][1].write(event.text)
                case StepFinished():
                    self._finish_step(event)
                case Tests():
                    self._tests(event)
                case Version() | Installed():
                    self._note(event)
                case Artifact():
                    self._artifacts.append(event)
                case PhaseFinished():
                    self._finished = event
                case _:
                    pass

    def _require_own(self, event: PhaseStarted) -> None:
        """Events must be of what was asked for. Raises InfrastructureError."""
        if (event.phase, event.correlation) != (self._plan.name, self._job.correlation):
            raise InfrastructureError(
                f"the worker tells of phase {event.phase} ({event.correlation}), not of {self._plan.name}"
                f" ({self._job.correlation})"
            )

    def _note(self, event: Version | Installed) -> None:
        """What a phase says of its release, or of its guest."""
        if isinstance(event, Installed):
            phases.set_packages(self._database, self._job.lease, self._row, event.packages)
        elif isinstance(self._job.subject, releases.Release):
            releases.set_version(self._database, self._job.subject.id, event.version)

    def _log_name(self, step: str) -> str:
        return log_name(self._job.attempt, self._plan.name, self._replay.number if self._replay else 0, step)

    def _state(self, event: PhaseStarted | Reset | StartingState) -> None:
        """What the phase starts from."""
        if isinstance(event, PhaseStarted):
            self._require_own(event)
            return
        if isinstance(event, StartingState):
            self.seen.installed = event.sha256
            phases.installed(self._database, self._job.lease, self._row, event.sha256)
            return
        self.seen.image_digest = event.digest
        told = self._job.about(phase=self.label, guest=event.guest)
        _log.info("phase %s has a clean guest after %.2f s, %s", self.label, event.seconds, event.method, extra=told)
        how = phases.Reset(event.image, event.digest, event.isolation, event.network, event.method, event.seconds)
        phases.reset(self._database, self._job.lease, self._row, how)
        attempts.describe(self._database, self._job.lease, isolation=event.isolation)

    def _finish_step(self, event: StepFinished) -> None:
        if event.step not in self._steps:
            return
        if event.outcome is Outcome.FAILED and self._tests_step(event.step):
            self.seen.failed_step = event.step
        step, log = self._steps.pop(event.step)
        sealed = log.seal()
        result = StepResult(
            event.outcome,
            event.exit_status,
            event.seconds,
            event.why or "",
            sealed.sha256 if sealed.size else None,
            sealed.size,
            event.truncated,
            event.remark or "",
        )
        phases.finish_step(self._database, self._job.lease, step, result)

    def _beside_the_tests(self) -> bool:
        """Whether a replay failed without its tests saying so: a harness, for example, that knows no such test."""
        if self._replay is None:
            return False
        step = self.seen.failed_step
        return step is None or (self._replay.alone and not self.seen.failed_cases.get(step))

    def _tests_step(self, name: str) -> bool:
        """Whether a step of that name reports tests, and must succeed."""
        return any(step.name == name and step.required and step.tests is not Report.NONE for step in self._plan.steps)

    def _tests(self, event: Tests) -> None:
        failed = [case.name for case in event.cases if case.outcome is Outcome.FAILED]
        if failed:
            known = self.seen.failed_cases.setdefault(event.step, [])
            known.extend(failed[: NAMED + 1 - len(known)])
        if event.step != self._told[0]:
            self._write_tests()
            self._told = (event.step, [])
        told = self._told[1]
        told += [
            TestResult(case.name, case.outcome, case.seconds, case.message or "", case.line) for case in event.cases
        ]
        if len(told) >= _CASES_AT_ONCE:
            self._write_tests()

    def _write_tests(self) -> None:
        """Make rows of the tests that were told. Raises LeaseLost."""
        step, told = self._told
        self._told = (step, [])
        if told:
            phases.add_tests(self._database, self._job.lease, self._row, step, told)

    def take_artifacts(self) -> Outcome | None:
        """Check what was brought against what was announced, and keep it; an outcome if something is wrong."""
        checked: list[NewArtifact] = []
        for artifact in self._artifacts:
            file = self.incoming / artifact.file
            if file.is_symlink() or not file.is_file():
                return self.lost(f"artifact {artifact.file} did not arrive")
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if digest != artifact.sha256 or file.stat().st_size != artifact.size:
                return self.lost(f"artifact {artifact.file} changed on its way from the worker")
            checked.append(
                NewArtifact(
                    artifact.file,
                    artifact.sha256,
                    artifact.size,
                    artifact.format,
                    artifact.package,
                    artifact.version,
                    artifact.architecture,
                )
            )
        for new in checked:
            self._dispatch.files.take(self.incoming / new.file, new.sha256)
        number = self._replay.number if self._replay else 0
        phases.add_artifacts(self._database, self._job.lease, self._plan.name, checked, replay=number)
        self._job.artifacts = self.output
        if isinstance(self._job.subject, releases.Release):
            found = needs.read(checked, self._dispatch.files.path)
            dependencies.record(self._database, self._job.product, self._job.target, found)
        return None

    def close(self) -> Outcome:
        """End the phase as its worker said; a worker that said nothing was lost."""
        if self._finished is None:
            return self.lost("the worker ended without saying how the phase went")
        if self._finished.outcome is Outcome.FAILED and self._beside_the_tests():
            return self._end(
                Outcome.INFRASTRUCTURE,
                f"it says nothing of the tests: {self._finished.why or 'it failed'}",
                self._finished.seconds,
                self._finished.command_seconds,
            )
        return self._end(
            self._finished.outcome, self._finished.why or "", self._finished.seconds, self._finished.command_seconds
        )

    def lost(self, why: str) -> Outcome:
        """End the phase as infrastructure's fault; what its steps said so far is kept."""
        for step, log in self._steps.values():
            sealed = log.seal()
            digest = sealed.sha256 if sealed.size else None
            result = StepResult(Outcome.INFRASTRUCTURE, None, 0.0, why, digest, sealed.size)
            phases.finish_step(self._database, self._job.lease, step, result)
        self._steps.clear()
        return self._end(Outcome.INFRASTRUCTURE, why, time.monotonic() - self._begun, 0.0)

    def _end(self, outcome: Outcome, why: str, seconds: float, command_seconds: float) -> Outcome:
        # Of a worker that was lost in the middle of a list.
        self._write_tests()
        self.ended = (outcome, why)
        level = logging.WARNING if outcome is Outcome.INFRASTRUCTURE else logging.INFO
        said = f"{outcome} after {seconds:.1f} s" + (f": {why}" if why else "")
        _log.log(level, "phase %s of %s: %s", self.label, _of(self._job), said, extra=self._job.about(phase=self.label))
        if self._replay is None:
            self._job.outcomes[self._plan.name] = (outcome, why)
        phases.finish(
            self._database,
            self._job.lease,
            self._row,
            outcome,
            why=why,
            seconds=seconds,
            command_seconds=command_seconds,
            guest_went_off=self._finished is not None and self._finished.guest_went_off,
        )
        return outcome

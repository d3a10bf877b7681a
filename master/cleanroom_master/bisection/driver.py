"""The steps of bisections: whenever a trial has ended, what it says is noted and the next ones are begun.

Everything is in rows, and each step is one transaction: the driver can be killed at any moment and goes on from what
is written. The probes are trials, which the farm works on as on any build.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from cleanroom_base.errors import CleanroomError, InfrastructureError, InputError
from cleanroom_base.settings import Settings
from cleanroom_db import attempts, bisections, products
from cleanroom_db.bisections import Bisection, Candidate, Probe
from cleanroom_db.connection import Cursor, Database
from cleanroom_db.states import BisectionAxis, BisectionState, TrialPurpose, Verdict
from cleanroom_db.trials import NewTrial
from cleanroom_images.store import Store
from cleanroom_master.bisection.search import GOOD_END, Decision, Search
from cleanroom_master.bisection.verdicts import judge
from cleanroom_master.planning import Planner
from cleanroom_recipes import loader
from cleanroom_recipes.model import Outcome, RefKind, Target
from cleanroom_recipes.plan import PhasePlan

# In the names of those who need an image, so that it is not removed.
_CLAIM = "bisection-"
_SPOILING = {Outcome.INFRASTRUCTURE, Outcome.CANCELLED}


def phases_up_to(plans: Sequence[PhasePlan], wanted: str) -> list[str]:
    """The phases that a verdict on one of them needs: those before it that make what it works on, and itself.

    Raises InputError if it is none of them.
    """
    names = [plan.name for plan in plans]
    if wanted not in names:
        raise InputError(f"the recipe has no phase {wanted} there")
    before = plans[: names.index(wanted)]
    return [*(plan.name for plan in before if plan.makes_artifacts), wanted]


class Driver:
    """Works on the bisections of one installation."""

    def __init__(self, settings: Settings, database: Database, planner: Planner) -> None:
        self._settings = settings
        self._database = database
        self._planner = planner
        self._images = Store(settings.state)

    def turn(self) -> None:
        """Do what is to be done for each bisection of which something is new."""
        for bisection in bisections.to_advance(self._database):
            # What one of them stumbles over must hold up neither the others nor the releases.
            try:
                self._advance(bisection)
            except Exception as error:
                self._stumbled(bisection, error)

    def take_over(self) -> None:
        """Let go of images that only bisections needed that have ended."""
        self._release_images(bisections.running(self._database))

    def _stumbled(self, bisection: int, error: Exception) -> None:
        said = error.message if isinstance(error, CleanroomError) else repr(error)
        with contextlib.suppress(InfrastructureError), self._database.transaction() as cursor:
            before = bisections.lock(cursor, bisection)
            why = f"waits, because: {said}"
            if before.state is BisectionState.RUNNING and before.why != why:
                bisections.note(cursor, bisection, before.suspects, why)

    def _advance(self, bisection_id: int) -> None:
        with self._database.transaction() as cursor:
            bisection = bisections.lock(cursor, bisection_id)
            if bisection.state is not BisectionState.RUNNING:
                return
            step = _Step(self._database, cursor, bisection, self._planner)
            if not step.probes and bisection.axis is BisectionAxis.IMAGE:
                self._claim_images(bisection, step)
            step.take()
        if step.finished:
            self._release_images(bisections.running(self._database))

    def _claim_images(self, bisection: Bisection, step: _Step) -> None:
        name = Target.parse(bisection.target).image
        if self._images.digest(name) is None:
            return
        with self._images.held(name):
            for candidate in step.candidates:
                try:
                    image = self._images.image(name, candidate.name)
                except InfrastructureError:
                    step.skip(candidate.position, f"the image {candidate.name[:12]} is not kept any more")
                    continue
                self._images.claim(image, f"{_CLAIM}{bisection.id}-{candidate.position}")

    def _release_images(self, running: Iterable[int]) -> None:
        needed = {str(one) for one in running}
        # Images that the master may not touch are another host's.
        with contextlib.suppress(OSError):
            for name in self._images.names():
                for user in self._images.users(name):
                    if user.startswith(_CLAIM) and user.removeprefix(_CLAIM).partition("-")[0] not in needed:
                        self._images.release(name, user)


class _Step:
    """One step of a bisection, whose row is locked."""

    def __init__(self, database: Database, cursor: Cursor, bisection: Bisection, planner: Planner) -> None:
        self._database = database
        self._cursor = cursor
        self._bisection = bisection
        self._planner = planner
        self.finished = False
        self.candidates = bisections.candidates(database, bisection.id)
        self.probes = bisections.probes(database, bisection.id)
        self._search = Search([candidate.parents for candidate in self.candidates])
        self._verdicts = {one.position: one.verdict for one in self.candidates if one.verdict is not None}
        self._why = {one.position: one.why for one in self.candidates}
        # By position: the trial that runs, how many were begun, and how many of them say that it is good.
        self._running = {probe.position: probe.trial_id for probe in self.probes if probe.finished_at is None}
        self._begun = Counter(probe.position for probe in self.probes)
        self._passed = Counter(probe.position for probe in self.probes if probe.verdict is Verdict.GOOD)

    def take(self) -> None:
        """Note what ended, and begin what is next, or end the bisection."""
        for probe in self.probes:
            if probe.verdict is None and probe.finished_at is not None:
                self._note(probe)
        if self._wrong_end():
            return
        while True:
            decision = self._search.decide(self._verdicts, tuple(self._running), self._bisection.parallel)
            for position in decision.needless:
                self._cancel(self._running.pop(position))
            if decision.ended:
                self._conclude(decision)
                return
            # One that cannot even be begun is skipped, and another one is chosen.
            begun = [self._begin(position) for position in decision.probe]
            if all(begun):
                break
            if self._wrong_end():
                return
        bisections.note(self._cursor, self._bisection.id, decision.suspects, self._progress(decision))

    def skip(self, position: int, why: str) -> None:
        """Note that a candidate cannot be judged."""
        self._judge(position, Verdict.SKIPPED, why)

    def _note(self, probe: Probe) -> None:
        """What a probe says that has ended; one that is good may have to be probed again."""
        criterion = self._bisection.criterion
        told = bisections.seen(self._database, probe.trial_id, criterion)
        verdict, why = judge(criterion, told, self.candidates[probe.position].conditions.get("image_digest"))
        bisections.judge_probe(self._cursor, probe.trial_id, verdict)
        if probe.position in self._verdicts:
            return
        if verdict is Verdict.GOOD:
            self._passed[probe.position] += 1
            if self._passed[probe.position] < self._bisection.runs:
                self._begin(probe.position)
                return
        self._judge(probe.position, verdict, why)

    def _judge(self, position: int, verdict: Verdict, why: str) -> None:
        bisections.judge_candidate(self._cursor, self._bisection.id, position, verdict, why)
        self._verdicts[position] = verdict
        self._why[position] = why

    def _begin(self, position: int) -> bool:
        """Begin a probe; False if the candidate cannot be judged. Raises InfrastructureError."""
        try:
            trial = self._trial(self.candidates[position])
        except InputError as error:
            self.skip(position, "; ".join(map(str.strip, str(error).splitlines())))
            return False
        self._begun[position] += 1
        self._running[position] = bisections.begin(
            self._cursor, self._bisection, position, self._begun[position], trial
        )
        return True

    def _trial(self, candidate: Candidate) -> NewTrial:
        """The trial that probes a candidate: only the phases that the verdict needs. Raises InputError."""
        bisection = self._bisection
        product = products.get(self._database, bisection.product)
        recipe = self._planner.recipe_at(candidate.commit, product)
        target = Target.parse(bisection.target)
        if target not in recipe.targets:
            raise InputError(f"the recipe has no target {target} there")
        phases = phases_up_to(self._planner.phases(recipe, target), bisection.phase)
        return NewTrial(
            TrialPurpose.BISECTION,
            product.name,
            candidate.commit,
            candidate.commit,
            RefKind.COMMIT,
            # How often a candidate is probed is the bisection's own wish.
            loader.to_json(replace(recipe, replays=0)),
            bisection.channel,
            [(bisection.target, phases)],
            bisection.requested_by,
            candidate.conditions,
        )

    def _cancel(self, trial: int) -> None:
        attempts.cancel_trial(self._database, trial, "the bisection learns nothing more from it")
        bisections.judge_probe(self._cursor, trial, Verdict.SKIPPED)

    def _wrong_end(self) -> bool:
        """End the bisection if an end is not what it was said to be."""
        problems: list[str] = []
        spoiled = False
        for position, wanted, option in (
            (GOOD_END, Verdict.GOOD, "good"),
            (self._search.bad_end, Verdict.BAD, "bad"),
        ):
            verdict = self._verdicts.get(position)
            if verdict is None or verdict is wanted:
                continue
            ref = getattr(self._bisection, option)
            told = {Verdict.GOOD: "passes", Verdict.BAD: "fails", Verdict.SKIPPED: "cannot be judged"}[verdict]
            why = self._why[position]
            problems.append(f"the {option} one {told}: {ref}" + (f" ({why})" if why else ""))
            outcomes = {probe.outcome for probe in self.probes if probe.position == position}
            spoiled = spoiled or (verdict is Verdict.SKIPPED and bool(outcomes & _SPOILING))
        if not problems:
            return False
        self._finish(BisectionState.SPOILED if spoiled else BisectionState.REFUSED, "; ".join(problems), ())
        return True

    def _conclude(self, decision: Decision) -> None:
        if len(decision.suspects) == 1:
            candidate = self.candidates[decision.suspects[0]]
            state, why = BisectionState.FOUND, f"{candidate.name} is the first bad one: {candidate.subject}"
        else:
            state = BisectionState.UNDECIDED
            why = f"the first bad one is one of {len(decision.suspects)}: all but the last of these cannot be judged"
        odd = [self.candidates[one].name[:12] for one in decision.contradictions]
        if odd:
            why += f" (and there is another change: {', '.join(odd)} fails, although what follows it passes)"
        self._finish(state, why, decision.suspects)

    def _finish(self, state: BisectionState, why: str, suspects: tuple[int, ...]) -> None:
        for trial in self._running.values():
            self._cancel(trial)
        self._running.clear()
        bisections.finish(self._cursor, self._bisection.id, state, why, suspects)
        self.finished = True

    def _progress(self, decision: Decision) -> str:
        if not {GOOD_END, self._search.bad_end} <= set(self._verdicts):
            return "the two ends are verified"
        return f"{len(decision.suspects)} candidates left, about {decision.rounds} steps"

"""The replays of one phase: begins them, sees how they end, and writes what they say of the phase."""

from __future__ import annotations

from cleanroom_db import phases
from cleanroom_master import replays
from cleanroom_master.dispatch import Dispatch, PhaseRun
from cleanroom_master.replays import Ended, Replay
from cleanroom_recipes.model import Outcome


class Replays:
    """The replays of a phase that has failed. While they run, the attempt does not know how the phase ended."""

    def __init__(self, dispatch: Dispatch, first: PhaseRun) -> None:
        self._dispatch = dispatch
        self._first = first
        self._times = dispatch.replays_of(first.job)
        self._alone = replays.alone(first.plan, first.seen.failed_cases)
        self._running: tuple[PhaseRun, Replay] | None = None
        self._ended: list[Ended] = []
        self._kept = False

    @property
    def wanted(self) -> bool:
        """Whether it failed by its tests, in a state that is known, and replays are wanted."""
        seen = self._first.seen
        by_tests = seen.failed_step is not None and bool(seen.failed_cases.get(seen.failed_step))
        return by_tests and seen.image_digest is not None and self._times > 0

    def following(self) -> PhaseRun | None:
        """Begin the next replay; None where there is none. Raises LeaseLost."""
        self._take_in()
        first = self._first
        alone = replays.following(
            first.seconds,
            self._ended,
            times=self._times,
            isolates=self._alone is not None,
            budget=first.plan.timeout,
        )
        if alone is None:
            return None
        first.job.outcomes.pop(first.plan.name, None)
        digest = first.seen.image_digest
        assert digest is not None
        replay = Replay(len(self._ended) + 1, alone, digest, first.seen.installed)
        plan = self._alone if alone and self._alone is not None else first.plan
        run = self._dispatch.begin_replay(first.job, plan, replay, keeps=first.plan.makes_artifacts and not self._kept)
        self._running = (run, replay)
        return run

    def close(self) -> Outcome:
        """Write what the replays say of the phase, and return how it ended by that. Raises LeaseLost."""
        self._take_in()
        first = self._first
        assert first.ended is not None
        assert first.seen.failed_step is not None
        found = replays.verdict(first.ended[1], self._ended)
        phases.settle(self._dispatch.database, first.job.lease, first.row, first.seen.failed_step, found)
        first.job.outcomes[first.plan.name] = (found.outcome, found.why)
        return found.outcome

    def _take_in(self) -> None:
        """Note how the replay ended that ran last."""
        if self._running is None:
            return
        run, replay = self._running
        self._running = None
        outcome, why = run.ended or (Outcome.INFRASTRUCTURE, "it never ended")
        self._kept = self._kept or (outcome is Outcome.PASSED and run.artifacts)
        self._ended.append(Ended(outcome, why, run.seconds, replay.alone))

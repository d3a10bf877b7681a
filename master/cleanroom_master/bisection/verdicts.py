"""What a probe says of its candidate: good, bad, or that it cannot be judged, and why. Pure.

What cannot be judged is never guessed: a build that fails before the test, a guest that was lost, a test that is
sometimes one and sometimes the other.
"""

from __future__ import annotations

from cleanroom_db.bisections import Criterion, Seen
from cleanroom_db.states import Verdict
from cleanroom_recipes.model import Outcome

_VERDICTS = {
    Outcome.PASSED: Verdict.GOOD,
    Outcome.FAILED: Verdict.BAD,
    Outcome.REGRESSED: Verdict.BAD,
}


def judge(criterion: Criterion, seen: Seen, image_digest: str | None = None) -> tuple[Verdict, str]:
    """The verdict of one probe that has ended, and what it stands on.

    `image_digest` is the image from which its guests were to start; None: from the present one.
    """
    if seen.outcome in (Outcome.INFRASTRUCTURE, Outcome.CANCELLED):
        return Verdict.SKIPPED, f"{seen.outcome}: {seen.why}"
    if seen.packages_why is not None:
        return Verdict.SKIPPED, seen.packages_why or "the packages could not be had in these versions"
    others = [digest[:12] for digest in seen.image_digests if image_digest not in (None, digest)]
    if others:
        return Verdict.SKIPPED, f"its guests started from another image: {', '.join(others)}"
    if criterion.test is not None:
        outcome, why = seen.case_outcome, seen.case_message
        missing = f"there is no test {criterion.test}"
    elif criterion.step is not None:
        outcome, why = seen.step_outcome, seen.step_why
        missing = f"the step {criterion.step} did not run"
    else:
        outcome, why = seen.phase_outcome, seen.phase_why
        missing = f"the phase {criterion.phase} did not run"
    if outcome in _VERDICTS:
        return _VERDICTS[outcome], why or ""
    if outcome is not None:
        return Verdict.SKIPPED, f"{criterion} is {outcome}" + (f": {why}" if why else "")
    # The reason of the attempt names the phase that failed before.
    return Verdict.SKIPPED, "; ".join(filter(None, (missing, seen.phase_why or seen.why)))

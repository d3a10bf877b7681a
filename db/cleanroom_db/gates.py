"""Gates: what must hold before a release is published, evaluated here and nowhere else.

`decide` is pure; `evaluate` reads the rows that it needs and keeps what came of it. What a release is to satisfy was
settled when it was claimed (`release.gates`): what the site demands, and what the recipe adds to that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from cleanroom_base.errors import InputError
from cleanroom_db import comparisons, conflicts, dependents, reproductions, unions
from cleanroom_db.comparisons import Base, Recorded
from cleanroom_db.conflicts import Check
from cleanroom_db.connection import Cursor, Row, plain
from cleanroom_db.dependents import Tried
from cleanroom_db.reproductions import Reproduction
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_db.states import GateState, SignatureState
from cleanroom_recipes.model import Flaky, Gate, Outcome, RefKind

_SQL = load("gates")

_GOOD = (Outcome.PASSED, Outcome.SKIPPED)
_FAILING = (Outcome.FAILED, Outcome.REGRESSED)
# Without its packages there is nothing to publish, whoever would waive that.
_INDISPENSABLE = "build"
_NAMES = 3


@dataclass(frozen=True)
class Waiver(Entity):
    """Somebody's word that a gate need not hold for a release, for some time."""

    id: int
    gate: str
    actor: str
    reason: str
    waived_at: datetime
    expires_at: datetime
    active: bool


@dataclass(frozen=True)
class GateResult(Entity):
    """Whether a gate holds, and why. `target` None: it is about the whole release."""

    gate: str
    target: str | None
    state: GateState
    why: str
    evaluated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A phase or a step as it ended; `outcome` None: it has not."""

    outcome: Outcome | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class BuildFacts:
    """What gates ask of one build's latest attempt.

    `comparison` None: it was not compared; `conflicts` None: its packages were not looked at with others.
    """

    target: str
    planned: tuple[str, ...]
    outcome: Outcome | None
    why: str = ""
    phases: Mapping[str, Part] = field(default_factory=dict)
    steps: Mapping[tuple[str, str], Part] = field(default_factory=dict)
    comparison: Recorded | None = None
    conflicts: Check | None = None
    reproduction: Reproduction | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What gates ask of a release. `waivers` are those that have not expired, by gate.

    `subject` is what is released; `dependents` None: which are tried is not chosen yet; `flaky` is what its recipe says
    of builds that are flaky; `union` None: what it is installed together with is not chosen yet; `promoted`: it is out
    already, and nothing more is tried.
    """

    channel: str
    kind: RefKind
    signature: SignatureState
    approved_by: str | None
    gates: tuple[str, ...]
    builds: tuple[BuildFacts, ...]
    waivers: Mapping[str, Waiver] = field(default_factory=dict)
    subject: str = ""
    dependents: Tried | None = None
    flaky: Flaky = Flaky.HOLDS
    union: unions.Tried | None = None
    promoted: bool = False

    @property
    def flaky_let_pass(self) -> str | None:
        """Who or what lets a flaky build pass, in words; None: nobody."""
        if self.flaky is Flaky.PASSES:
            return "the recipe lets that pass"
        approved = self.approved_by is not None and self.flaky is Flaky.HOLDS
        return f"approved by {self.approved_by}" if approved else None


_STATES = {True: GateState.HOLDS, False: GateState.FAILS, None: GateState.WAITS}

# Whether it holds (None: that is not known yet), and one sentence.
_Said = tuple[bool | None, str]


def evaluate(cursor: Cursor, release_id: int) -> list[GateResult]:
    """Evaluate all gates of a (locked) release, keep the results, and return them."""
    results = decide(_facts(cursor, release_id))
    forget(cursor, release_id)
    rows = [(release_id, result.gate, result.target, result.state, plain(result.why)) for result in results]
    cursor.insert_many(_SQL["insert_results"], rows)
    return results


def evaluate_conflicts(cursor: Cursor, release_id: int, channel: str) -> list[GateResult]:
    """Evaluate only the gate about conflicts, for what is about to go into a channel, and return its results.

    They are kept where the channel is the one that the release was judged for.
    """
    facts = _facts(cursor, release_id, channel)
    results = [one for one in decide(facts) if one.gate == Gate.NO_CONFLICTS]
    for one in results if channel == cursor.value(_SQL["channel"], release=release_id) else ():
        cursor.execute(
            _SQL["update_result"],
            release=release_id,
            gate=one.gate,
            target=one.target,
            state=one.state,
            why=plain(one.why),
        )
    return results


def decide(facts: Facts) -> list[GateResult]:
    """Whether each gate holds: those that are demanded, and those that were waived without being demanded."""
    results = []
    for gate in dict.fromkeys((*facts.gates, *facts.waivers)):
        whole = _OF_RELEASE.get(gate)
        if whole is not None:
            results.append(_result(facts, gate, None, whole(facts)))
        else:
            results += [_result(facts, gate, build.target, _of_build(facts, gate, build)) for build in facts.builds]
    return results


def decide_promotion(
    cursor: Cursor, release_id: int, channel: str, demanded: Sequence[str], actor: str
) -> list[GateResult]:
    """Whether the gates of another channel hold for a (locked) release; nothing is kept.

    It is compared with what that channel has. Whoever promotes it approves it.
    """
    facts = _facts(cursor, release_id, channel)
    compared = {one.target: one for one in comparisons.with_channel(cursor, release_id, channel)}
    builds = tuple(replace(build, comparison=compared.get(build.target)) for build in facts.builds)
    approved_by = facts.approved_by or actor
    facts = replace(facts, channel=channel, gates=tuple(demanded), builds=builds, approved_by=approved_by)
    return decide(replace(facts, promoted=True))


def tally(results: Iterable[GateResult]) -> str:
    """How many gates hold, in words; nothing where there is only one."""
    states: dict[str, set[GateState]] = {}
    for result in results:
        states.setdefault(result.gate, set()).add(result.state)
    if len(states) < 2:
        return ""
    holding = sum(found == {GateState.HOLDS} for found in states.values())
    waived = sum(GateState.WAIVED in found and GateState.FAILS not in found for found in states.values())
    return f"{holding} of {len(states)} gates hold" + (f", {waived} waived" if waived else "")


def results(cursor: Cursor, release_id: int, demanded: Sequence[str]) -> list[GateResult]:
    """What the last evaluation found, in the order in which gates are demanded."""
    rows = cursor.rows(_SQL["results"], release=release_id, gates=list(demanded))
    return [GateResult.from_row(row) for row in rows]


def waivers(cursor: Cursor, release_id: int) -> list[Waiver]:
    """All waivers of a release, also those that expired, oldest first."""
    return [Waiver.from_row(row) for row in cursor.rows(_SQL["waivers"], release=release_id)]


def forget(cursor: Cursor, release_id: int) -> None:
    """Drop the results of a release that is built again."""
    cursor.execute(_SQL["forget"], release=release_id)


def waive(cursor: Cursor, release_id: int, gate: str, actor: str, reason: str, expires_at: datetime) -> None:
    """Note that a gate need not hold for a (locked) release until a time.

    Raises InputError for a gate that the release does not have, that cannot be waived or that holds, for an expiry
    that is not in the future, and without a reason.
    """
    facts = _facts(cursor, release_id)
    problem = waiver_problem(facts, gate)
    if problem is None and not reason.strip():
        problem = "a waiver needs a reason"
    if problem is None and expires_at <= datetime.now(UTC):
        problem = f"a waiver ends in the future, not at {_at(expires_at)}"
    if problem is not None:
        raise InputError(problem, hint=f"these can be waived: {', '.join(waivable(facts)) or 'none'}")
    cursor.execute(
        _SQL["waive"], release=release_id, gate=gate, actor=plain(actor), reason=plain(reason), expires_at=expires_at
    )


def to_waive(cursor: Cursor, release_id: int) -> tuple[str, ...]:
    """The gates of a release that a person can waive now."""
    facts = _facts(cursor, release_id)
    return tuple(gate for gate in waivable(facts) if waiver_problem(facts, gate) is None)


def waivable(facts: Facts) -> tuple[str, ...]:
    """The gates of a release that may be waived: those demanded but a few, and each phase but the first."""
    fixed = (Gate.BUILDS, Gate.SIGNATURE, Gate.APPROVAL, f"phase:{_INDISPENSABLE}")
    phases = [f"phase:{phase}" for build in facts.builds for phase in build.planned]
    return tuple(gate for gate in dict.fromkeys((*facts.gates, *phases)) if gate not in fixed)


def waiver_problem(facts: Facts, gate: str) -> str | None:
    """Why a gate cannot be waived; None: it can."""
    if gate == Gate.BUILDS:
        return "the gate 'builds' cannot be waived as a whole: waive the phase that failed, phase:NAME"
    if gate == Gate.APPROVAL:
        return "the gate 'approval' cannot be waived: approve the release"
    if gate in (Gate.SIGNATURE, f"phase:{_INDISPENSABLE}"):
        return f"the gate {gate!r} cannot be waived"
    if gate not in waivable(facts):
        return f"the release has no gate {gate[:100]!r}"
    ended = all(build.outcome is not None for build in facts.builds)
    if ended and all(_of_build(facts, gate, build)[0] for build in facts.builds):
        return f"the gate {gate!r} holds: there is nothing to waive"
    return None


def _result(facts: Facts, gate: str, target: str | None, said: _Said) -> GateResult:
    holds, why = said
    waiver = facts.waivers.get(gate)
    if holds or waiver is None:
        return GateResult(gate, target, _STATES[holds], why)
    why = f"{why}; waived by {waiver.actor} until {_at(waiver.expires_at)}: {waiver.reason}"
    return GateResult(gate, target, GateState.WAIVED, why)


def _at(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _of_build(facts: Facts, gate: str, build: BuildFacts) -> _Said:
    kind, _, name = gate.partition(":")
    if kind == "phase":
        return _phase(facts, build, name)
    if kind == "step":
        return _step(facts, build, *name.split("/", 1))
    rule = _OF_BUILD.get(gate)
    # A word of a later version, or one written into the row by hand: what nobody can judge does not hold.
    return rule(facts, build) if rule is not None else (False, f"this version knows no gate {gate!r}")


def _builds(facts: Facts, build: BuildFacts) -> _Said:
    if build.outcome in _GOOD:
        return True, f"{build.target} passed"
    if build.outcome is Outcome.FLAKY and facts.flaky_let_pass is not None:
        return True, f"{build.target} was flaky ({build.why or 'no reason'}); {facts.flaky_let_pass}"
    failing = [name for name, part in build.phases.items() if part.outcome in _FAILING]
    ended = all(name in build.phases for name in build.planned)
    waived = all(f"phase:{name}" in facts.waivers for name in failing)
    if build.outcome in _FAILING and failing and ended and waived:
        return True, f"{build.target} passed but for what is waived: {', '.join(failing)}"
    return False, f"{build.target}: {build.why or build.outcome}"


def _phase(facts: Facts, build: BuildFacts, name: str) -> _Said:
    if name not in build.planned:
        return False, f"`{name}` is not part of the build on {build.target}"
    part = build.phases.get(name, Part(None))
    since = (
        f" from {build.comparison.since}" if name == "upgrade" and build.comparison and build.comparison.since else ""
    )
    if part.outcome in _GOOD:
        return True, f"`{name}`{since} {part.outcome} on {build.target}"
    if part.outcome is Outcome.FLAKY:
        return _flaky(facts, build, name, part)
    if part.outcome in _FAILING:
        return False, f"`{name}`{since} failed on {build.target}" + (f" ({part.why})" if part.why else "")
    return False, f"`{name}` ended as {part.outcome or 'nothing'} on {build.target}"


def _flaky(facts: Facts, build: BuildFacts, name: str, part: Part) -> _Said:
    allowed = facts.flaky_let_pass
    why = f"`{name}` was flaky on {build.target}" + (f" ({part.why})" if part.why else "")
    return allowed is not None, f"{why}; {allowed}" if allowed else why


def _step(facts: Facts, build: BuildFacts, phase: str, name: str) -> _Said:
    part = build.steps.get((phase, name))
    if part is not None and part.outcome is Outcome.FLAKY:
        return _flaky(facts, build, f"{phase}/{name}", part)
    if part is not None and part.outcome in _GOOD:
        return True, f"`{phase}/{name}` {part.outcome} on {build.target}"
    if part is None and build.phases.get(phase, Part(None)).outcome is Outcome.SKIPPED:
        return True, f"`{phase}` had nothing to do on {build.target}"
    if part is None:
        return False, f"`{phase}/{name}` did not run on {build.target}"
    return False, f"`{phase}/{name}` failed on {build.target}" + (f" ({part.why})" if part.why else "")


def _compared(facts: Facts, build: BuildFacts, tell: Callable[[Recorded], str]) -> _Said:
    """A gate over the comparison with the published release; `tell` says what is wrong, or nothing."""
    found = build.comparison
    if found is None:
        return False, f"{build.target} was not compared with what is published"
    if found.against_ref is None:
        return True, f"nothing is published in {facts.channel} for {build.target} yet"
    wrong = tell(found)
    if not wrong:
        return True, f"compared with {found.since} on {build.target}"
    return False, f"{wrong} since {found.since} on {build.target}"


def _no_regression(facts: Facts, build: BuildFacts) -> _Said:
    def tell(found: Recorded) -> str:
        # A phase whose tests are told of need not be told of itself.
        of_tests = {str(place).partition(" ")[0] for place in found.names.get("regressed", ())}
        parts = [f"phase `{phase}` regressed" for phase in found.phases if phase not in of_tests]
        parts += [_tests(found, "regressed", "regressed")] if found.regressed else []
        return "; ".join(parts)

    return _compared(facts, build, tell)


def _no_slowdown(facts: Facts, build: BuildFacts) -> _Said:
    return _compared(facts, build, lambda found: _tests(found, "slower", "became slower") if found.slower else "")


def _no_lost_tests(facts: Facts, build: BuildFacts) -> _Said:
    return _compared(facts, build, lambda found: _tests(found, "gone", "run no more") if found.gone else "")


def _no_conflicts(facts: Facts, build: BuildFacts) -> _Said:
    found = build.conflicts
    if found is None:
        # Where that could not be done yet, the publisher does it: nothing leaves without.
        return True, f"{build.target} is looked at with what {facts.channel} publishes before it leaves"
    if not found.conflicts:
        note = f"; {found.note}" if found.note else ""
        return True, f"{found.packages} packages of {facts.channel} go together on {build.target}{note}"
    told = [one.why for one in found.conflicts[:_NAMES]]
    more = len(found.conflicts) - len(told)
    return False, f"on {build.target} {'; '.join(told)}" + (f"; and {more} more" if more else "")


def _reproducible(_: Facts, build: BuildFacts) -> _Said:
    found = build.reproduction
    if found is None:
        # It is begun once the build has ended well.
        return None, f"{build.target} is not built again yet"
    if found.outcome is None:
        return None, f"{build.target} is built again in other circumstances"
    if found.compared_at is None:
        return False, f"{build.target} could not be built again in other circumstances ({found.why or found.outcome})"
    number = len(found.artifacts)
    if not found.different:
        return True, f"{number} {'artifact' if number == 1 else 'artifacts'} of {build.target} can be reproduced"
    told = f"{len(found.different)} of {number} {'artifact' if number == 1 else 'artifacts'}, {found.different[0]}"
    first = " first" if len(found.different) > 1 else ""
    return False, f"built again on {build.target}, {told}{first}, came out otherwise"


def _tests(found: Recorded, kind: str, what: str) -> str:
    number = int(getattr(found, kind))
    names = [place.split(" ", 2)[-1][:80] for place in found.names.get(kind, ())][:_NAMES]
    told = f" ({', '.join(names)}{', ...' if number > len(names) else ''})"
    return f"{number} {'test' if number == 1 else 'tests'} {what}{told}"


def _signature(facts: Facts) -> _Said:
    if facts.kind is not RefKind.TAG:
        return True, "a commit has no tag that could be signed"
    return facts.signature is SignatureState.GOOD, f"the tag's signature is {facts.signature}"


def _approval(facts: Facts) -> _Said:
    if facts.approved_by is None:
        return False, "waits for approval"
    return True, f"approved by {facts.approved_by}"


def _dependents(facts: Facts) -> _Said:
    if facts.dependents is None:
        return None, "waits for the choice of dependents to be tried"
    return facts.dependents.said(facts.subject)


def _union(facts: Facts) -> _Said:
    if facts.union is not None:
        return facts.union.said()
    if facts.promoted:
        return False, "it was not installed together with others before it was published: its channel did not demand it"
    return None, "waits for the choice of what it is installed together with"


_OF_RELEASE: Mapping[str, Callable[[Facts], _Said]] = {
    Gate.SIGNATURE: _signature,
    Gate.APPROVAL: _approval,
    Gate.DEPENDENTS: _dependents,
    Gate.UNION: _union,
}


_OF_BUILD: Mapping[str, Callable[[Facts, BuildFacts], _Said]] = {
    Gate.BUILDS: _builds,
    Gate.NO_REGRESSION: _no_regression,
    Gate.NO_SLOWDOWN: _no_slowdown,
    Gate.NO_LOST_TESTS: _no_lost_tests,
    Gate.NO_CONFLICTS: _no_conflicts,
    Gate.REPRODUCIBLE: _reproducible,
}


def _facts(cursor: Cursor, release_id: int, channel: str | None = None) -> Facts:
    """What the gates of a release ask about, for its own channel or another one."""
    release = cursor.row(_SQL["release"], release=release_id)
    assert release is not None
    channel = channel or release["channel"]
    builds = cursor.rows(_SQL["builds"], release=release_id)
    attempts = [build["attempt"] for build in builds]
    parts = cursor.rows(_SQL["parts"], attempts=attempts)
    checked = conflicts.recorded(cursor, release_id, channel)
    compared = {one.attempt_id: one for one in comparisons.recorded(cursor, attempts) if one.base is Base.PUBLISHED}
    again = reproductions.of_attempts(cursor, attempts)
    return Facts(
        channel=channel,
        kind=RefKind(release["kind"]),
        signature=SignatureState(release["signature"]),
        approved_by=release["approved_by"],
        gates=tuple(release["gates"]),
        builds=tuple(
            BuildFacts(
                build["target"],
                tuple(build["phases"]),
                _outcome(build["outcome"]),
                build["why"],
                {part["phase"]: _part(part) for part in _those(parts, build) if part["step"] is None},
                {(part["phase"], part["step"]): _part(part) for part in _those(parts, build) if part["step"]},
                compared.get(build["attempt"]),
                checked.get(build["target"]),
                again.get(build["attempt"]),
            )
            for build in builds
        ),
        waivers={waiver.gate: waiver for waiver in waivers(cursor, release_id) if waiver.active},
        subject=f"{release['product']} {release['ref']}",
        dependents=dependents.tried(cursor, release_id),
        flaky=Flaky(release["flaky"]),
        union=unions.tried(cursor, release_id),
    )


def _those(parts: Iterable[Row], build: Row) -> list[Row]:
    return [part for part in parts if part["attempt"] == build["attempt"]]


def _part(row: Row) -> Part:
    return Part(_outcome(row["outcome"]), str(row["why"]))


def _outcome(word: object) -> Outcome | None:
    return None if word is None else Outcome(str(word))

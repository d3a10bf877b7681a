"""Comparisons of two releases of a product: what regressed, what was fixed, what is new, gone or slower.

A test case is known by its target, phase, step and name. What did not run is as if it were not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cleanroom_base.errors import InputError
from cleanroom_db import slowness
from cleanroom_db.connection import Cursor, Database, Row, plain
from cleanroom_db.rows import Entity
from cleanroom_db.sql import load
from cleanroom_recipes.model import Outcome

_SQL = load("comparisons")

# Cases of each kind that are listed unless all are asked for, and names that are kept with an attempt.
LISTED = 1000
NAMES = 20
# Names that a sentence tells, and the characters of each.
_TOLD = 3
_NAME_LIMIT = 80
# Cases whose earlier times are looked up: those whose time grew most.
_SLOWEST = 1000
_ALL = 2**31 - 1
_FAILING = (Outcome.FAILED, Outcome.REGRESSED)
_RAN = (*_FAILING, Outcome.PASSED, Outcome.FLAKY)
_RANKS = (None, "skipped", "passed", "flaky", "failed")


class Change(StrEnum):
    """What became of a case, a step or a phase."""

    REGRESSED = "regressed"  # it passed (or was flaky), and fails
    FIXED = "fixed"  # it failed, and passes
    STILL_FAILING = "still failing"
    FLAKY = "flaky"  # now it is; before, it ran somehow
    NEW = "new"  # it did not run before
    GONE = "gone"  # it does not run any more
    SLOWER = "slower"  # it passed and passes, and takes longer: see `slowness`
    SAME = "same"


class Base(StrEnum):
    """With what a release is compared: the last published one of its channel, or the run before it."""

    PUBLISHED = "published"
    PREVIOUS = "previous"


@dataclass(frozen=True)
class Compared(Entity):
    """A release that is compared."""

    id: int
    product: str
    ref: str
    commit: str
    version: str | None
    channel: str

    @property
    def name(self) -> str:
        """How people call it."""
        return self.version or self.ref


@dataclass(frozen=True, slots=True)
class CaseChange:
    """What became of one case. `before` and `now` None: it was, or is, not there; seconds None: not said."""

    target: str
    phase: str
    step: str
    name: str
    change: Change
    before: str | None
    now: str | None
    seconds_before: float | None
    seconds: float | None
    message: str

    @property
    def place(self) -> str:
        """The case with its phase and step."""
        return f"{self.phase} {self.step} {self.name}"


@dataclass(frozen=True, slots=True)
class PartChange:
    """What became of a phase, or of one of its steps (`step` None: of the phase itself)."""

    target: str
    phase: str
    step: str | None
    change: Change
    before: str | None
    now: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two releases of a product, by target. `cases` has at most so many of each kind as were asked for."""

    against: Compared
    release: Compared
    both: tuple[str, ...]
    only_before: tuple[str, ...]
    only_now: tuple[str, ...]
    counts: Mapping[str, Mapping[Change, int]]
    cases: tuple[CaseChange, ...]
    phases: tuple[PartChange, ...]
    steps: tuple[PartChange, ...]

    def count(self, change: Change) -> int:
        """How many cases of all targets."""
        return sum(counts.get(change, 0) for counts in self.counts.values())

    @property
    def regressed(self) -> bool:
        """Whether a case or a phase passed before and fails now."""
        return self.count(Change.REGRESSED) > 0 or any(part.change is Change.REGRESSED for part in self.phases)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two attempts on one target."""

    target: str
    before: int
    now: int


def change_of(before: Outcome | None, now: Outcome | None) -> Change:
    """What became of something by its outcomes (None: it was not there); the SQL block `cases` says the same."""
    ran_before, runs_now = before in _RAN, now in _RAN
    if not (ran_before and runs_now):
        return Change.NEW if runs_now else Change.GONE if ran_before else Change.SAME
    if now in _FAILING:
        return Change.STILL_FAILING if before in _FAILING else Change.REGRESSED
    if now is Outcome.FLAKY:
        return Change.FLAKY
    return Change.FIXED if before in _FAILING else Change.SAME


def compare(
    database: Database, product: str, ref: str, against: str | None = None, *, all_cases: bool = False
) -> Comparison:
    """Compare a release with an earlier one (None: the last published one of its channel), by target.

    Raises InputError where one of them is not known, was not built, or where nothing is published yet.
    """
    with database.transaction() as cursor:
        release = _find(cursor, product, ref)
        before = _published(cursor, release) if against is None else _find(cursor, product, against)
        earlier, later = (_builds(cursor, one) for one in (before, release))
        both = tuple(target for target in later if target in earlier)
        pairs = [Pair(target, earlier[target], later[target]) for target in both]
        cases = _cases(cursor, release, pairs, limit=_ALL if all_cases else LISTED, all_cases=all_cases)
        parts = _parts(cursor, pairs)
    return Comparison(
        before,
        release,
        both,
        tuple(target for target in earlier if target not in later),
        tuple(target for target in later if target not in earlier),
        {target: _of_target(cases.counts, target) for target in both},
        cases.listed,
        tuple(part for part in parts if part.step is None),
        tuple(part for part in parts if part.step is not None),
    )


def record(cursor: Cursor, attempt_id: int) -> None:
    """Compare an attempt that has just ended with its bases, keep that, and let what regressed say so.

    A failed phase in which tests regressed is `regressed`, and so is the attempt; one whose failing tests failed
    before stays `failed`.
    """
    row = cursor.row(_SQL["subject"], attempt=attempt_id)
    assert row is not None
    release, target = Compared.from_row(row), str(row["target"])
    before: dict[int, _Recording] = {}
    for base in Base:
        against = base_of(cursor, release, target, base)
        attempt = None if against is None else _attempts(cursor, against).get(target)
        if against is None or attempt is None:
            cursor.execute(_SQL["record"], **_Recording().columns, attempt=attempt_id, base=base, against=None)
            continue
        if against.id not in before:
            before[against.id] = _recording(cursor, release, Pair(target, attempt, attempt_id))
        found = before[against.id]
        cursor.execute(_SQL["record"], **found.columns, attempt=attempt_id, base=base, against=against.id)
        if base is Base.PUBLISHED:
            _explain(cursor, attempt_id, found, against)


@dataclass(frozen=True)
class Recorded(Entity):
    """What is kept of an attempt's comparison. `against_ref` None: there was nothing to compare with."""

    attempt_id: int
    target: str
    base: Base
    against_ref: str | None
    against_version: str | None
    regressed: int
    fixed: int
    still_failing: int
    flaky: int
    new: int
    gone: int
    slower: int
    same: int
    phases: tuple[str, ...]
    names: Mapping[str, Sequence[str]]

    @property
    def since(self) -> str:
        """What people call the release that it was compared with."""
        return self.against_version or self.against_ref or ""


def with_channel(cursor: Cursor, release_id: int, channel: str) -> list[Recorded]:
    """A release compared, target by target, with what a channel publishes of its product now; nothing is kept."""
    row = cursor.row(_SQL["get"], release=release_id)
    assert row is not None
    release = Compared.from_row(row)
    return [_with_channel(cursor, release, channel, target, now) for target, now in _attempts(cursor, release).items()]


def _with_channel(cursor: Cursor, release: Compared, channel: str, target: str, now: int) -> Recorded:
    row = cursor.row(_SQL["published_in"], product=release.product, channel=channel, release=release.id, target=target)
    against = None if row is None else Compared.from_row(row)
    before = None if against is None else _attempts(cursor, against).get(target)
    found = _Recording() if before is None else _recording(cursor, release, Pair(target, before, now))
    columns: dict[str, Any] = found.columns
    return Recorded(
        now,
        target,
        Base.PUBLISHED,
        None if against is None or before is None else against.ref,
        None if against is None else against.version,
        **{name: columns[name] for name in (*map(_column, Change), "phases", "names")},
    )


def recorded(cursor: Cursor, attempts: Iterable[int]) -> list[Recorded]:
    """What is kept of some attempts, in the order of their builds."""
    return [Recorded.from_row(row) for row in cursor.rows(_SQL["recorded"], attempts=list(attempts))]


@dataclass(frozen=True, slots=True)
class _Recording:
    """One target's comparison, to be kept."""

    counts: Mapping[str, Mapping[Change, int]] = field(default_factory=dict)  # by phase
    cases: tuple[CaseChange, ...] = ()
    parts: tuple[PartChange, ...] = ()

    @property
    def columns(self) -> dict[str, object]:
        names: dict[str, list[str]] = {}
        for case in self.cases:
            names.setdefault(_column(case.change), []).append(case.place)
        return {
            **{_column(change): sum(counts.get(change, 0) for counts in self.counts.values()) for change in Change},
            "phases": [part.phase for part in self.parts if part.step is None and part.change is Change.REGRESSED],
            "names": {change: places[:NAMES] for change, places in names.items()},
        }


def _column(change: Change) -> str:
    return change.replace(" ", "_")


def _recording(cursor: Cursor, release: Compared, pair: Pair) -> _Recording:
    cases = _cases(cursor, release, [pair], limit=NAMES)
    counts = {phase: count for (_, phase), count in cases.counts.items()}
    return _Recording(counts, cases.listed, tuple(_parts(cursor, [pair])))


def _explain(cursor: Cursor, attempt_id: int, found: _Recording, against: Compared) -> None:
    """Let the failed phases in which tests regressed say so, and the attempt."""
    sentences = []
    for phase, counts in found.counts.items():
        number = counts.get(Change.REGRESSED, 0)
        if not number:
            continue
        tests = sum(count for change, count in counts.items() if change is not Change.GONE)
        names = [case.name for case in found.cases if case.phase == phase and case.change is Change.REGRESSED]
        why = f"{number} of {tests} tests regressed since {against.name}{_told(names, number)}"
        written = cursor.value(_SQL["explain_phase"], attempt=attempt_id, phase=phase, why=plain(why))
        if written is not None:
            sentences.append((phase, str(written)))
    if sentences:
        why = cursor.value(_SQL["why"], attempt=attempt_id)
        parts = [f"{phase}: {sentence}" for phase, sentence in sentences]
        # What else failed first stays; of the phase itself the sentence says more.
        if why and not any(why.startswith(f"{phase}: ") for phase, _ in sentences):
            parts.insert(0, why)
        cursor.execute(_SQL["explain_attempt"], attempt=attempt_id, why=plain("; ".join(parts)))


def _told(names: Sequence[str], number: int) -> str:
    """The first few names, each cut to a bearable length: they come out of a guest."""
    if not names:
        return ""
    shown = [name if len(name) <= _NAME_LIMIT else f"{name[:_NAME_LIMIT]}..." for name in names[:_TOLD]]
    return f": {', '.join(shown)}" + (", ..." if number > len(shown) else "")


@dataclass(frozen=True, slots=True)
class _Cases:
    counts: Mapping[tuple[str, str], Mapping[Change, int]]  # by target and phase
    listed: tuple[CaseChange, ...]


def _cases(cursor: Cursor, release: Compared, pairs: Sequence[Pair], *, limit: int, all_cases: bool = False) -> _Cases:
    """The cases of some attempts: how many of each kind in each phase, and the first `limit` of each kind."""
    cursor.execute(_SQL["room"])
    rows = cursor.rows(
        _SQL["cases"],
        **_columns(pairs),
        floor=slowness.FLOOR_SECONDS,
        slowest=_SLOWEST,
        limit=limit,
        all=all_cases,
    )
    counts: dict[tuple[str, str], Counter[Change]] = {}
    for row in rows:
        if row["kind"] == "count":
            counts.setdefault((row["target"], row["phase"]), Counter())[Change(row["change"])] += row["before"]
    slower = _slower(cursor, release, [row for row in rows if row["kind"] == "candidate"])
    for case in slower:
        counts[case.target, case.phase][Change.SLOWER] += 1
        counts[case.target, case.phase][Change.SAME] -= 1
    taken = {(case.target, case.place) for case in slower}
    listed = [_case(row) for row in rows if row["kind"] == "case"]
    listed = [case for case in listed if (case.target, case.place) not in taken] if taken else listed
    order = list(Change)
    listed.extend(slower[:limit])
    listed.sort(key=lambda case: (order.index(case.change), case.target, case.place))
    return _Cases(counts, tuple(listed))


def _of_target(counts: Mapping[tuple[str, str], Mapping[Change, int]], target: str) -> Mapping[Change, int]:
    total: Counter[Change] = Counter()
    for (one, _), phase in counts.items():
        if one == target:
            total.update(phase)
    return total


def _slower(cursor: Cursor, release: Compared, candidates: Sequence[Row]) -> list[CaseChange]:
    """Those candidates that are slower than their earlier runs allow."""
    if not candidates:
        return []
    rows = cursor.rows(
        _SQL["earlier_seconds"],
        targets=[row["target"] for row in candidates],
        phases=[row["phase"] for row in candidates],
        steps=[row["step"] for row in candidates],
        names=[row["name"] for row in candidates],
        product=release.product,
        release=release.id,
        runs=slowness.RUNS,
    )
    earlier = {row["number"]: row["seconds"] for row in rows}
    return [
        _case(row, Change.SLOWER)
        for number, row in enumerate(candidates, 1)
        if slowness.is_slower(earlier.get(number, ()), row["seconds"])
    ]


def _case(row: Row, change: Change | None = None) -> CaseChange:
    return CaseChange(
        row["target"],
        row["phase"],
        row["step"],
        row["name"],
        change or Change(row["change"]),
        _RANKS[row["before"]],
        _RANKS[row["now"]],
        row["seconds_before"],
        row["seconds"],
        row["message"] or "",
    )


def _parts(cursor: Cursor, pairs: Sequence[Pair]) -> list[PartChange]:
    """What became of the phases and steps of some attempts, in their order."""
    return [
        PartChange(
            row["target"],
            row["phase"],
            row["step"],
            change_of(_outcome(row["before"]), _outcome(row["now"])),
            row["before"],
            row["now"],
            row["why"],
        )
        for row in cursor.rows(_SQL["phases"], **_columns(pairs))
    ]


def _outcome(word: str | None) -> Outcome | None:
    return None if word is None else Outcome(word)


def _columns(pairs: Iterable[Pair]) -> dict[str, object]:
    pairs = list(pairs)
    return {
        "targets": [pair.target for pair in pairs],
        "before": [pair.before for pair in pairs],
        "now": [pair.now for pair in pairs],
    }


def _find(cursor: Cursor, product: str, ref: str) -> Compared:
    row = cursor.row(_SQL["find"], product=plain(product), ref=plain(ref))
    if row is None:
        raise InputError(
            f"there is no release of {product} {ref}",
            hint=f"'cleanroom release list {product}' shows those there are",
        )
    return Compared.from_row(row)


def _published(cursor: Cursor, release: Compared) -> Compared:
    """The newest of the releases that are the published base of one of the release's targets. Raises InputError."""
    found = [base for target in _targets(cursor, release) if (base := base_of(cursor, release, target, Base.PUBLISHED))]
    if not found:
        raise InputError(
            f"the channel {release.channel} has no other release of {release.product} yet",
            hint=f"name the release to compare with: cleanroom release compare {release.product} REF {release.ref}",
        )
    return max(found, key=lambda base: base.id)


def base_of(cursor: Cursor, release: Compared, target: str, base: Base) -> Compared | None:
    """The release to compare one with on one target; None: there is none."""
    row = cursor.row(
        _SQL["base"],
        product=release.product,
        channel=release.channel,
        release=release.id,
        target=target,
        published=base is Base.PUBLISHED,
    )
    return None if row is None else Compared.from_row(row)


def _targets(cursor: Cursor, release: Compared) -> list[str]:
    return [row["target"] for row in cursor.rows(_SQL["releases_builds"], release=release.id)]


def _attempts(cursor: Cursor, release: Compared) -> dict[str, int]:
    rows = cursor.rows(_SQL["releases_builds"], release=release.id)
    return {row["target"]: row["attempt"] for row in rows if row["attempt"] is not None}


def _builds(cursor: Cursor, release: Compared) -> dict[str, int]:
    """The attempts to compare, by target. Raises InputError if there is none."""
    found = _attempts(cursor, release)
    if not found:
        raise InputError(f"no build of {release.product} {release.ref} has ended yet")
    return found

"""What to probe next. Pure: the same candidates and verdicts give the same choice.

The candidates are a directed graph without cycles, as commits are; a sequence of images is one in a line. The measure
is the one of `git bisect`: for each candidate, how many of those left it follows (itself included). One that is
nearest to the middle leaves the least whatever its verdict is; with several probes at once they are laid so that they
cut what is left into equal parts, so n candidates take the logarithm of n to the base of one more than there are
probes. Source: git-bisect(1), and "Fighting regressions with git bisect", chapter "Bisection algorithm".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cleanroom_db.states import Verdict

GOOD_END = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now.

    `probe`: candidates to begin with; `needless`: probes that run and of which nothing more can be learnt;
    `suspects`: those of which one is the first bad one; `ended`: nothing more can be learnt at all; `rounds`: about
    how many rounds of probes are left; `contradictions`: bad ones that a good one follows.
    """

    probe: tuple[int, ...]
    needless: tuple[int, ...]
    suspects: tuple[int, ...]
    ended: bool
    rounds: int
    contradictions: tuple[int, ...]


class Search:
    """The candidates by position, each after those that it follows: 0 is the good end, the last one the bad end."""

    def __init__(self, parents: Sequence[Collection[int]]) -> None:
        """`parents` has the positions of those that each candidate follows at once.

        Raises ValueError if there are not at least two, or if one follows a later one.
        """
        if len(parents) < 2:
            raise ValueError("there are no two ends")
        self._followed: list[int] = []
        for position, before in enumerate(parents):
            bits = 1 << position
            for parent in before:
                if not 0 <= parent < position:
                    raise ValueError(f"candidate {position} follows {parent}")
                bits |= self._followed[parent]
            self._followed.append(bits)

    @property
    def bad_end(self) -> int:
        """The position of the bad end."""
        return len(self._followed) - 1

    def decide(self, verdicts: Mapping[int, Verdict], running: Collection[int], parallel: int) -> Decision:
        """What to do, with `verdicts` so far, probes that are `running`, and at most `parallel` of them at once.

        The ends are looked at first. An end with another verdict than its own is the caller's to report.
        """
        cleared = self._union([GOOD_END, *(one for one, verdict in verdicts.items() if verdict is Verdict.GOOD)])
        bad, contradictions = self._earliest(verdicts, cleared)
        left = self._followed[bad] & ~cleared
        suspects = _positions(left)
        rounds = _rounds(len(suspects), parallel)
        unknown = [end for end in (GOOD_END, self.bad_end) if end not in verdicts]
        if unknown:
            free = [end for end in unknown if end not in running][: max(parallel - len(running), 0)]
            return Decision(tuple(free), (), suspects, False, rounds + 1, contradictions)
        inside = [one for one in running if one != bad and left >> one & 1]
        needless = tuple(one for one in running if one not in inside)
        open_ones = [one for one in suspects if one != bad and one not in verdicts and one not in inside]
        ended = not inside and not open_ones
        skipped = [one for one in suspects if verdicts.get(one) is Verdict.SKIPPED]
        weights = {one: (self._followed[one] & left).bit_count() for one in suspects}
        probe = _choose(weights, open_ones, skipped, inside, parallel)
        return Decision(probe, needless, suspects, ended, 0 if ended else rounds, contradictions)

    def _union(self, positions: Collection[int]) -> int:
        """All that these follow, themselves included."""
        bits = 0
        for position in positions:
            bits |= self._followed[position]
        return bits

    def _earliest(self, verdicts: Mapping[int, Verdict], cleared: int) -> tuple[int, tuple[int, ...]]:
        """The bad one that leaves the fewest, and the bad ones that a good one follows."""
        known = sorted({self.bad_end, *(one for one, verdict in verdicts.items() if verdict is Verdict.BAD)})
        left = {one: (self._followed[one] & ~cleared).bit_count() for one in known if not cleared >> one & 1}
        contradictions = tuple(one for one in known if cleared >> one & 1)
        return min(left, key=lambda one: (left[one], one), default=self.bad_end), contradictions


def _choose(
    weights: Mapping[int, int],
    open_ones: Sequence[int],
    skipped: Sequence[int],
    running: Sequence[int],
    parallel: int,
) -> tuple[int, ...]:
    """Candidates that cut what is left into parts as equal as those that run already allow."""
    count = min(parallel, len(weights) - 1)
    places = [len(weights) * part / (count + 1) for part in range(1, count + 1)]
    for one in running:
        if places:
            places.remove(min(places, key=lambda place: abs(place - weights[one])))
    chosen: list[int] = []
    # The middle ones first, as they tell the most where there is no room for all.
    for place in sorted(places, key=lambda place: abs(place - len(weights) / 2)):
        free = [one for one in open_ones if one not in chosen]
        if free and len(chosen) + len(running) < parallel:
            chosen.append(_nearest(place, weights, free, skipped))
    return tuple(chosen)


def _nearest(place: float, weights: Mapping[int, int], free: Sequence[int], skipped: Sequence[int]) -> int:
    """The candidate nearest to a place; where that could not be judged, a neighbour, then ones further and further
    away: what cannot be judged often lies together."""

    def distance(one: int) -> float:
        return abs(weights[one] - place)

    ordered = sorted(free, key=lambda one: (distance(one), weights[one], one))
    if not skipped or min(map(distance, skipped)) > distance(ordered[0]):
        return ordered[0]
    count = len(skipped)
    if count <= 2:
        return ordered[min(count, len(ordered)) - 1]
    # As `git bisect skip`, which takes one at random and prefers near ones; but the same every time.
    return ordered[int(len(ordered) * _spread(count - 2) ** 1.5)]


def _spread(number: int) -> float:
    """1/2, 1/4, 3/4, 1/8, 5/8, ...: numbers between 0 and 1 that never come together (van der Corput's sequence)."""
    share, part = 0.0, 0.5
    while number:
        share += part * (number & 1)
        number >>= 1
        part /= 2
    return share


def _positions(bits: int) -> tuple[int, ...]:
    return tuple(position for position, bit in enumerate(reversed(f"{bits:b}")) if bit == "1")


def _rounds(suspects: int, parallel: int) -> int:
    """How many rounds of so many probes tell one of so many candidates from the others."""
    return math.ceil(math.log(suspects, parallel + 1) - 1e-9) if suspects > 1 else 0

"""`cleanroom release compare`: what regressed, what was fixed, what is new, gone or slower."""

from __future__ import annotations

import argparse
from typing import Any

from cleanroom_base.errors import InputError
from cleanroom_db import comparisons
from cleanroom_db.comparisons import Change, Comparison
from cleanroom_master.cli.frame import Context, Noun, printable, table

_SHOWN = 20
_COLUMNS = ["change", "target", "phase", "step", "name", "before", "now", "seconds"]


def register(release: Noun) -> None:
    """Declare the verb."""
    verb = release.verb(
        "compare",
        compare,
        "compare the tests of two releases",
        "cleanroom release compare hello v2.9 v2.10",
        about="With one REF it is compared with what its channel now publishes. Exit status 1: something regressed.",
    )
    verb.add_argument("product")
    verb.add_argument("refs", nargs="+", metavar="REF", help="the earlier release (or none) and the later one")
    verb.add_argument("--all", action="store_true", help="list every case, also those that are the same")


def compare(context: Context, arguments: argparse.Namespace) -> int:
    """Exit status 0 nothing regressed, 1 something did, 2 bad input."""
    *against, ref = arguments.refs
    if len(against) > 1:
        raise InputError("two releases are compared, not more")
    found = comparisons.compare(
        context.database, arguments.product, ref, against[0] if against else None, all_cases=arguments.all
    )
    context.emit(view(found), describe(found, everything=arguments.all))
    return 1 if found.regressed else 0


def view(found: Comparison) -> dict[str, Any]:
    """A comparison as scripts read it."""
    return {
        "product": found.release.product,
        "against": _release(found.against),
        "release": _release(found.release),
        "regressed": found.regressed,
        "counts": {str(change): found.count(change) for change in Change},
        "targets": [
            *({"target": one, "in": "both", "counts": _counts(found, one)} for one in found.both),
            *({"target": one, "in": "against", "counts": None} for one in found.only_before),
            *({"target": one, "in": "release", "counts": None} for one in found.only_now),
        ],
        "phases": [_part(part) for part in found.phases],
        "steps": [{**_part(part), "step": part.step} for part in found.steps],
        "cases": [
            {
                **{name: getattr(case, name) for name in ("target", "phase", "step", "name", "change")},
                **{name: getattr(case, name) for name in ("before", "now", "seconds_before", "seconds", "message")},
            }
            for case in found.cases
        ],
    }


def describe(found: Comparison, *, everything: bool = False) -> str:
    """A comparison for people: how many of each kind, then the first of each."""
    counts = ", ".join(f"{found.count(change)} {change}" for change in Change if found.count(change))
    lines = [f"{found.release.product} {found.release.name} since {found.against.name}: {counts or 'no tests'}"]
    lines += [f"  {one}: only in {found.against.ref}" for one in found.only_before]
    lines += [f"  {one}: only in {found.release.ref}" for one in found.only_now]
    lines += [
        f"  {part.target}: phase {part.phase} {part.change}: {printable(part.why) or part.now}"
        for part in found.phases
        if part.change not in (Change.SAME, Change.NEW)
    ]
    cases = []
    for change in Change:
        alike = [case for case in found.cases if case.change is change]
        cases += alike if everything else alike[:_SHOWN]
    rows = [{name: getattr(case, name) for name in _COLUMNS} for case in cases]
    if rows:
        lines += ["", table(rows, _COLUMNS)]
    if len(rows) < len(found.cases):
        lines.append("(more: --all)")
    return "\n".join(lines)


def _counts(found: Comparison, target: str) -> dict[str, int]:
    return {str(change): found.counts[target].get(change, 0) for change in Change}


def _release(one: comparisons.Compared) -> dict[str, Any]:
    return {"ref": one.ref, "version": one.version, "commit": one.commit}


def _part(part: comparisons.PartChange) -> dict[str, Any]:
    return {name: getattr(part, name) for name in ("target", "phase", "change", "before", "now", "why")}

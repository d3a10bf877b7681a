"""`cleanroom release conflicts`: what a release would break among what is published and what waits beside it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from cleanroom_db import releases
from cleanroom_db.conflicts import Check, Conflict, Place
from cleanroom_db.releases import Release
from cleanroom_db.view import release_view
from cleanroom_master.cli.frame import Context, Noun, printable, table
from cleanroom_master.conflicts.check import Checker

_COLUMNS = ["target", "kind", "package", "other", "why"]


def register(release: Noun) -> None:
    """Declare the verb."""
    verb = release.verb(
        "conflicts",
        show,
        "look for packages that a release breaks, or that break it",
        "cleanroom release conflicts hello v2.10",
        about="It is looked at now, with what its channel publishes and with all that waits for publication there;\n"
        "nothing of it is changed. Exit status 1: there are conflicts.",
    )
    verb.add_argument("product")
    verb.add_argument("ref")


def show(context: Context, arguments: argparse.Namespace) -> int:
    """Exit status 0 no conflicts, 1 there are some, 2 there is no such release."""
    release = releases.find(context.database, arguments.product, arguments.ref)
    targets = [build["target"] for build in release_view(context.database, release.product, release.ref)["builds"]]
    checker = Checker.of(context.settings, context.database)
    found: list[Check] = []
    for place in dict.fromkeys(Place.of(release.channel, target) for target in targets):
        context.progress(f"looking at {release.product} {release.ref} with {place.channel} on {place.image}")
        found += checker.check(place, [release.id])[release.id]
    context.emit(view(release, found, _names(context, found)), describe(release, found))
    return 1 if any(check.conflicts for check in found) else 0


def view(release: Release, found: list[Check], names: Mapping[int, tuple[str, str]]) -> dict[str, Any]:
    """What was found, as scripts read it."""
    return {
        "product": release.product,
        "ref": release.ref,
        "channel": release.channel,
        "conflicts": sum(len(check.conflicts) for check in found),
        "targets": [
            {
                "target": check.target,
                "packages": check.packages,
                "note": check.note,
                "conflicts": [_conflict(one, names) for one in check.conflicts],
            }
            for check in found
        ],
    }


def describe(release: Release, found: list[Check]) -> str:
    """What was found, for people."""
    rows = [
        {"target": check.target, **{name: getattr(one, name) for name in _COLUMNS[1:]}}
        for check in found
        for one in check.conflicts
    ]
    name = f"{release.product} {release.ref}"
    lines = [f"{name} has {len(rows)} conflicts in {release.channel}", "", table(rows, _COLUMNS)] if rows else []
    for check in found:
        if not check.conflicts:
            lines.append(f"{name}: {check.packages} packages of {release.channel} go together on {check.target}")
        if check.note:
            lines.append(f"  {check.target}: {printable(check.note)}")
    return "\n".join(lines)


def _conflict(one: Conflict, names: Mapping[int, tuple[str, str]]) -> dict[str, Any]:
    product, ref = names.get(one.with_release or 0, (None, None))
    other = None if product is None else {"product": product, "ref": ref}
    return {**{name: getattr(one, name) for name in ("kind", "package", "other", "subject", "why")}, "with": other}


def _names(context: Context, found: list[Check]) -> dict[int, tuple[str, str]]:
    """The candidates that are named, by their ids."""
    ids = {one.with_release for check in found for one in check.conflicts if one.with_release is not None}
    others = [releases.get(context.database, number) for number in ids]
    return {other.id: (other.product, other.ref) for other in others}

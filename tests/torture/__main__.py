"""`make torture [SEED=N] [RELEASES=N]`: a campaign of small releases under disturbances, and an audit at its end."""

from __future__ import annotations

import argparse
import math
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

sys.path[1:1] = [str(Path(__file__).parent / "hook"), str(Path(__file__).parents[1] / "support")]

from campaign import Report, torture  # noqa: E402 - found by the line above
from disturbances import everything  # noqa: E402
from place import Place  # noqa: E402

from cleanroom_master.cli.frame import table  # noqa: E402

RELEASES = 100
_STATE = "/var/tmp/cleanroom-torture"
_SHOWN = 10


def main() -> int:
    """Run one; the exit status is 1 if there is anything to complain about."""
    parser = argparse.ArgumentParser(prog="tests/torture", description=__doc__)
    parser.add_argument("--seed", type=int, help="of an earlier campaign, to run it again; default: by chance")
    parser.add_argument("--releases", type=int, default=RELEASES, help=f"how many (default {RELEASES})")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help="disturbances whose kind or place holds it, or another",
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no disturbance after so many")
    parser.add_argument("--state", type=Path, default=Path(_STATE), help=f"where it happens (default {_STATE})")
    parser.add_argument("--json", type=Path, default=Path("torture.json"), help="where the report goes")
    options = parser.parse_args()
    # What was started is to be ended also when somebody ends this process.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000)
    for text in options.only:
        if not any(text in name for name in _names()):
            parser.error(f"no disturbance is called {text!r}; they are: {', '.join(_names())}")
    only = [one for one in everything() if any(text in f"{one.kind}, {one.where}" for text in options.only)]
    say(f"seed {seed}, {options.releases} releases, in {options.state}")
    report = torture(Place(options.state), seed, options.releases, only, say, minutes=options.minutes)
    if options.only:
        chosen = " ".join(f"--only '{text}'" for text in options.only)
        report.again = f".venv/bin/python tests/torture --seed {seed} --releases {options.releases} {chosen}"
    options.json.write_text(report.json() + "\n")
    show(report)
    return 0 if report.clean else 1


def say(line: str) -> None:
    """Tell a person what goes on."""
    sys.stderr.write(f"torture {time.strftime('%H:%M:%S')}: {line}\n")
    sys.stderr.flush()


def show(report: Report) -> None:
    """Tables for people."""
    places = Counter((one.kind, one.where) for one in report.rounds if one.happened)
    missed = Counter((one.kind, one.where) for one in report.rounds if not one.happened)
    rows = [
        {
            "disturbance": kind,
            "where": where,
            "times": places[kind, where],
            "did not happen": missed[kind, where],
            "by hand": sum(one.by_hand for one in report.rounds if (one.kind, one.where) == (kind, where)),
        }
        for kind, where in sorted({**places, **missed})
    ]
    whole = [{**report.releases, "retries": report.retries, "updates": report.updates, "minutes": report.minutes}]
    complaints = [{"complaint": column, "times": len(found)} for column, found in report.complaints.items()]
    for rows_of_one in (rows, whole, complaints):
        if rows_of_one:
            sys.stdout.write(f"{table(rows_of_one, list(rows_of_one[0]))}\n\n")
    for column, found in report.complaints.items():
        for text in found[:_SHOWN]:
            sys.stdout.write(f"{column}: {text}\n")
    sys.stdout.write(f"seed {report.seed}; again: {report.again}\n")
    if not report.clean:
        sys.stdout.write(f"the state is kept: {report.state}\n")


def _names() -> list[str]:
    return [f"{one.kind}, {one.where}" for one in everything()]


if __name__ == "__main__":
    sys.exit(main())

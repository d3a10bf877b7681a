"""`cleanroom test`: how one test case went from release to release."""

from __future__ import annotations

import argparse
from typing import Any

from cleanroom_db import histories
from cleanroom_db.histories import History, Run
from cleanroom_master.cli.frame import Commands, Context, printable, table

_SHOWN = 20
_COLUMNS = ["ref", "channel", "outcome", "seconds", "finished_at", "line", "message"]
_RUN = (
    *("ref", "commit", "version", "channel", "outcome", "seconds", "message", "finished_at", "line"),
    *("runs", "failures"),
)


def register(commands: Commands) -> None:
    """Declare the verbs of `test`."""
    test = commands.noun("test", "test cases of products")
    verb = test.verb(
        "history",
        history,
        "show how a test went from release to release",
        'cleanroom test history hello "tests/greeting"',
        about="How often it passes, and since which release and commit it fails, by target.",
    )
    verb.add_argument("product")
    verb.add_argument("case", help="the name of the test case")
    verb.add_argument("--channel", help="only releases on their way into this channel")


def history(context: Context, arguments: argparse.Namespace) -> None:
    """Show the outcomes of a case, its pass rate, and since when it fails."""
    found = histories.history(context.database, arguments.product, arguments.case, channel=arguments.channel)
    told = {"product": arguments.product, "name": arguments.case, "histories": [view(one) for one in found]}
    context.emit(told, "\n\n".join(_describe(one) for one in found))


def view(one: History) -> dict[str, Any]:
    """A history as scripts read it."""
    since = one.failing_since
    return {
        "target": one.target,
        "phase": one.phase,
        "step": one.step,
        "pass_rate": one.pass_rate,
        "flaky_rate": one.flaky_rate,
        "failing_since": None
        if since is None
        else {"ref": since.ref, "commit": since.commit, "version": since.version},
        "runs": [{name: getattr(run, name) for name in _RUN} for run in one.runs],
    }


def _describe(one: History) -> str:
    rate = "never ran" if one.pass_rate is None else f"passed in {one.pass_rate:.0%} of its runs"
    if one.flaky_rate:
        rate += f", flaky in {one.flaky_rate:.0%}"
    since = one.failing_since
    lines = [f"{one.target}, {one.phase} {printable(one.step)}: {rate}"]
    if since is not None:
        lines.append(f"  failing since {since.ref} (commit {since.commit})")
    rows = [_row(run) for run in one.runs[:_SHOWN]]
    lines += [f"  {line}" for line in table(rows, _COLUMNS).splitlines()]
    return "\n".join(lines)


def _row(run: Run) -> dict[str, Any]:
    row = {name: getattr(run, name) for name in _COLUMNS}
    if run.runs is not None:
        row["message"] = f"{run.failures} of {run.runs} runs failed" + (f": {run.message}" if run.message else "")
    return row

"""`cleanroom bisect` and `cleanroom bisection`: which commit, image or package broke something."""

from __future__ import annotations

import argparse
import getpass
import time

from cleanroom_base.errors import InfrastructureError, InputError, TimedOut
from cleanroom_db import bisections
from cleanroom_db.states import BisectionAxis, BisectionState
from cleanroom_master.bisection import evidence
from cleanroom_master.bisection.evidence import View
from cleanroom_master.bisection.start import Wish, start
from cleanroom_master.cli.frame import Commands, Context, printable, table
from cleanroom_master.logs import LogStore
from cleanroom_master.places import Places

_LOOK = 0.5
_DAY = 86_400.0
_LISTED = ["id", "product", "target", "axis", "good", "bad", "state", "created_at", "why"]
_PROBED = ["name", "subject", "verdict", "seconds", "why"]
# How long a name is shown to people: enough of a commit's id or an image's digest.
_NAME = 16
_SUBJECT = 60

_ABOUT = """\
Every step is a build in clean guests, of only the phases that the verdict needs, and several run at once where hosts
allow. The two ends are verified first. What cannot be judged (it does not build, the test is not there, its guest was
lost) is skipped, and neighbours are probed. Interrupted, or with --detach, the search goes on: see 'cleanroom
bisection'.

--axis commit searches the commits between two refs (tags, branches, commits). --axis image builds one commit (--at,
default: --bad) on the images of the target that were used from --good to --bad (releases, times, or digests), and
--axis dependencies with the versions of all packages that the builds from --good to --bad recorded (releases or
times).

Exit status: 0 found, 1 undecided because of what cannot be judged, 2 bad input (also a good one that is bad),
3 infrastructure or cancelled, 4 timed out (the search goes on)."""


def register(commands: Commands) -> None:
    """Declare `bisect`, and the verbs of `bisection`."""
    summary = "find what broke a test: a commit, an image, or a package"
    verb = commands.verb(
        "bisect", bisect, summary, 'cleanroom bisect hello --good v2.9 --bad v2.10 --test "tests/greeting"'
    )
    verb.description = f"{summary}\n\n{_ABOUT}"
    verb.add_argument("product")
    verb.add_argument("--good", required=True, metavar="REF", help="where it was well")
    verb.add_argument("--bad", required=True, metavar="REF", help="where it is not")
    verb.add_argument("--test", metavar="CASE", help="the test case that fails (default: the step that fails in --bad)")
    verb.add_argument("--axis", choices=[axis.value for axis in BisectionAxis], default=BisectionAxis.COMMIT.value)
    verb.add_argument("--phase", help="the phase to judge by, where no release has run the test yet")
    verb.add_argument("--target", metavar="IMAGE/FORMAT", help="default: the one on which it fails")
    verb.add_argument("--at", metavar="REF", help="what is built, where not commits are searched (default: --bad)")
    verb.add_argument("--runs", type=int, default=1, metavar="N", help="probe each so often; bad if it fails once")
    verb.add_argument("--parallel", type=int, metavar="N", help="probes at once (default: worker.parallel)")
    verb.add_argument("--detach", action="store_true", help="do not wait for the end")
    _waits(verb)
    noun = commands.noun("bisection", "searches for what broke something")
    listing = noun.verb("list", list_latest, "show the latest bisections", "cleanroom bisection list hello")
    listing.add_argument("product", nargs="?")
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (default 50)")
    for name, handler, help_text in (
        ("show", show, "show a bisection: its probes, and what it found"),
        ("wait", wait, "wait for the end of a bisection; exit status as 'cleanroom bisect'"),
        ("log", log, "show the verdicts as 'git bisect log' does: commands for a shell"),
        ("cancel", cancel, "end a bisection and its probes"),
    ):
        one = noun.verb(name, handler, help_text, f"cleanroom bisection {name} 3")
        one.add_argument("id", type=int)
        if name == "wait":
            _waits(one)
        if name == "cancel":
            one.add_argument("--reason", default="cancelled by hand", help="is kept in the audit log")


def _waits(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--timeout", type=float, default=_DAY, metavar="S", help="longest wait in seconds (default: a day)"
    )


def bisect(context: Context, arguments: argparse.Namespace) -> int:
    """Begin a bisection, and wait for its end."""
    wish = Wish(
        arguments.product,
        arguments.good,
        arguments.bad,
        BisectionAxis(arguments.axis),
        arguments.test,
        arguments.phase,
        arguments.target,
        arguments.at,
        arguments.runs,
        arguments.parallel,
        getpass.getuser(),
    )
    bisection = start(context.settings, context.database, wish)
    if arguments.detach:
        view = _view(context, bisection)
        context.emit(view, f"bisection {bisection} runs; its end: cleanroom bisection wait {bisection}")
        return 0
    return _wait(context, bisection, arguments.timeout)


def list_latest(context: Context, arguments: argparse.Namespace) -> None:
    """Show bisections, newest first."""
    found = bisections.list_latest(context.database, arguments.product, limit=arguments.limit)
    context.rows([evidence.summary(one) for one in found], _LISTED, "no bisections yet")


def show(context: Context, arguments: argparse.Namespace) -> None:
    """Show everything about one bisection."""
    view = _view(context, arguments.id)
    context.emit(view, describe(view))


def wait(context: Context, arguments: argparse.Namespace) -> int:
    """Wait for its end."""
    return _wait(context, arguments.id, arguments.timeout)


def log(context: Context, arguments: argparse.Namespace) -> None:
    """Show the verdicts in git's form."""
    told = evidence.git_log(context.database, arguments.id)
    context.emit({"id": arguments.id, "log": told}, printable_lines(told))


def cancel(context: Context, arguments: argparse.Namespace) -> None:
    """End a bisection."""
    ended = bisections.cancel(context.database, arguments.id, getpass.getuser(), arguments.reason)
    context.emit({"cancelled": ended.id}, f"bisection {ended.id} of {ended.product} is cancelled")


def _view(context: Context, bisection: int) -> View:
    return evidence.view(context.database, LogStore(Places(context.settings).logs), bisection)


def _wait(context: Context, bisection: int, timeout: float) -> int:
    """The exit status by how it ends. Raises InputError, InfrastructureError or TimedOut where it finds nothing."""
    deadline = time.monotonic() + timeout
    told: set[int] = set()
    said = ""
    try:
        while True:
            now = bisections.get(context.database, bisection)
            ended = now.state is not BisectionState.RUNNING
            if now.why != said or ended:
                said = now.why
                view = _view(context, bisection)
                _tell(context, view, told)
            if ended:
                return _end(context, view)
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"bisection {bisection} goes on: {printable(said) or 'it has not begun yet'}",
                    hint=f"cleanroom bisection wait {bisection}",
                )
            time.sleep(_LOOK)
    except KeyboardInterrupt:
        context.progress(f"bisection {bisection} goes on; to end it: cleanroom bisection cancel {bisection}")
        raise


def _tell(context: Context, view: View, told: set[int]) -> None:
    """Say which probes ended, and how far it is."""
    for probe in view["probes"]:
        if probe["verdict"] is not None and probe["trial"] not in told:
            told.add(probe["trial"])
            context.progress(
                f"{_short(probe['name'], _NAME)} {_short(probe['subject'], _SUBJECT)}: {probe['verdict']}"
                f" ({probe['seconds'] or 0:.1f} s)"
            )
    if view["state"] == BisectionState.RUNNING and view["why"]:
        context.progress(f"  {printable(view['why'])}")


def _end(context: Context, view: View) -> int:
    state, why = view["state"], printable(view["why"])
    if state in (BisectionState.FOUND, BisectionState.UNDECIDED):
        context.emit(view, describe(view))
        return 0 if state is BisectionState.FOUND else 1
    if context.as_json:
        context.emit(view)
    message = f"bisection {view['id']} of {view['product']} found nothing: {why}"
    hint = f"'cleanroom bisection show {view['id']}' shows its probes"
    raise (InputError if state is BisectionState.REFUSED else InfrastructureError)(message, hint=hint)


def describe(view: View) -> str:
    """A bisection for people: what was found first, then on what that stands."""
    judged_by = printable("/".join(filter(None, (view["phase"], view["step"], view["test"]))))
    lines = [
        f"bisection {view['id']} of {view['product']} on {view['target']} is {view['state']}",
        f"  {printable(view['why'])}",
        f"  {view['axis']} from {printable(view['good'])} to {printable(view['bad'])}, judged by {judged_by}",
        f"  {view['candidates']} candidates, {len(view['probes'])} probes, {view['seconds']:.1f} s",
    ]
    if view["first_bad"] is not None:
        lines += ["", *_first_bad(view)]
    elif len(view["suspects"]) > 1 and view["state"] == BisectionState.UNDECIDED:
        lines += [
            "",
            "one of these:",
            _indent(table(map(_row, view["suspects"]), ["name", "subject", "verdict", "why"])),
        ]
    if view["probes"]:
        lines += ["", _indent(table(map(_row, view["probes"]), _PROBED))]
    return "\n".join(lines)


def _first_bad(view: View) -> list[str]:
    first, found = view["first_bad"], view["evidence"]
    lines = [
        f"first bad: {first['name']}",
        f"  author {printable(first['author'])}" if first["author"] else "",
        f"  date   {first['dated_at']}" if first["dated_at"] else "",
        f"  {printable(first['subject'])}",
        "",
        f"{printable(found['criterion'])}: {printable(found['message']) or 'fails'}",
        *(f"  | {printable(line)}" for line in found["lines"]),
    ]
    return [line for place, line in enumerate(lines) if line or place == 4]


def _row(one: View) -> View:
    return {**one, "name": _short(one["name"], _NAME), "subject": _short(one["subject"], _SUBJECT)}


def _short(text: str, most: int) -> str:
    return printable(text[:most])


def printable_lines(text: str) -> str:
    """Text of several lines that cannot steer a terminal."""
    return "\n".join(printable(line) for line in text.splitlines())


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())

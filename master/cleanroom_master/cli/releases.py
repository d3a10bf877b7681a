"""`cleanroom release`: where a release is on its way, and why."""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from cleanroom_base.errors import InfrastructureError, InputError, TimedOut
from cleanroom_base.log_records import readable
from cleanroom_db import products, promotions, publications, ref_events, releases
from cleanroom_db.gates import NewWaiver
from cleanroom_db.publications import Publication
from cleanroom_db.releases import Release
from cleanroom_db.states import PublicationState, RefEventState, ReleaseState
from cleanroom_db.view import release_view
from cleanroom_master import service_records
from cleanroom_master.asking_back import ask_withdrawal
from cleanroom_master.cli import asking, comparing, conflicting, watching
from cleanroom_master.cli.frame import Commands, Context, Noun, printable, table
from cleanroom_master.demands import demanded
from cleanroom_master.publish.beside import add_addresses
from cleanroom_recipes import loader, names

COLUMNS = ["product", "ref", "version", "state", "created_at", "why"]
_LOOK = 0.5
_COMPARED = ("regressed", "fixed", "still_failing", "flaky", "new", "gone", "slower", "same")
# How a canary is while more is to come of it.
_NOT_KNOWN = ("waits", "spoiled", "leaving")
# A wait ends in these states; the exit status says which kind of end it is.
_DONE = {
    "published": 0,
    "failed": 1,
    "held": InfrastructureError.exit_status,
    "cancelled": InfrastructureError.exit_status,
    "withdrawn": InfrastructureError.exit_status,
}


def register(commands: Commands) -> None:
    """Declare the verbs of `release`."""
    release = commands.noun("release", "releases on their way")
    listing = release.verb("list", list_latest, "show the latest releases", "cleanroom release list --state failed")
    listing.add_argument("product", nargs="?")
    listing.add_argument("--state", choices=[state.value for state in ReleaseState])
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (default 50)")
    for name, handler, help_text in (
        ("show", show, "show a release and why it is where it is"),
        ("wait", wait, "wait until a release is published or will not be"),
        ("watch", watch, "show the way of a release, live, until its end"),
        ("retry", retry, "build again what did not pass"),
        ("approve", approve, "let a held release go on"),
        ("hold", hold, "keep a release from being published"),
    ):
        reason = ' --reason "why"' if name in ("approve", "hold") else ""
        verb = release.verb(name, handler, help_text, f"cleanroom release {name} hello v2.10{reason}")
        verb.add_argument("product")
        verb.add_argument("ref")
        if name in ("wait", "watch"):
            verb.add_argument("--timeout", type=float, default=3600.0, metavar="S", help="longest wait in seconds")
            verb.add_argument("--installed", action="store_true", help="also until consumers have installed it")
        if reason or name == "retry":
            verb.add_argument("--reason", required=bool(reason), default="", help="is kept in the audit log")
    told = release.verb(
        "log",
        log,
        "show what all services logged about a release, in order of time",
        "cleanroom release log hello v2.10",
        about="Of this machine's services, unless --from says otherwise. The logs of its steps are in the web status.",
    )
    told.add_argument("product")
    told.add_argument("ref")
    told.add_argument(
        "--from",
        dest="sources",
        action="append",
        metavar="FILE",
        help="a log, or - for standard input: docker compose logs, journalctl --output=cat; may be said again",
    )
    waiver = release.verb(
        "waive",
        waive,
        "let a release pass without a gate, for some time",
        'cleanroom release waive hello v2.10 phase:upgrade --reason "known" --expires 2030-01-31T12:00:00Z',
        about="`release show` names the gates. A release that was judged is judged again at once.",
    )
    for name in ("product", "ref", "gate"):
        waiver.add_argument(name)
    waiver.add_argument("--reason", required=True, help="is kept in the audit log")
    waiver.add_argument("--channel", help="for its promotion into this channel (default: where it goes by itself)")
    waiver.add_argument("--expires", required=True, metavar="TIME", help="until when it counts, as ISO 8601 with zone")
    _register_after_publication(release)
    comparing.register(release)
    conflicting.register(release)


def _register_after_publication(release: Noun) -> None:
    """The verbs for what is published."""
    further = release.verb(
        "promote",
        promote,
        "publish a release of testing in a further channel too: the same bytes",
        'cleanroom release promote hello v2.10 --reason "two weeks in testing"',
        about="The gates of that channel must hold (gates.stable, and the recipe's own). Nothing is built again.",
    )
    back = release.verb(
        "withdraw",
        withdraw,
        "take a published release out, for good",
        'cleanroom release withdraw hello v2.10 --reason "deletes the configuration"',
        about="Neither a rollback nor a later release brings back what was withdrawn; a new version is needed.",
    )
    for verb in (further, back):
        verb.add_argument("product")
        verb.add_argument("ref")
        verb.add_argument("--reason", required=True, help="is kept in the audit log, and shown with the release")
        asking.add_timeout(verb)
    further.add_argument("--to", default="stable", metavar="CHANNEL", help="the further channel (default stable)")
    back.add_argument("--channel", help="from this channel only (default: from all)")
    back.add_argument("--force", action="store_true", help="even if it is a security fix")


def list_latest(context: Context, arguments: argparse.Namespace) -> None:
    """Show releases, newest first."""
    state = ReleaseState(arguments.state) if arguments.state else None
    rows = [
        {
            "product": release.product,
            "ref": release.ref,
            "commit": release.commit,
            "version": release.version,
            "state": release.state,
            "why": release.why,
            "created_at": release.created_at,
        }
        for release in releases.list_latest(context.database, arguments.product, state=state, limit=arguments.limit)
    ]
    context.rows(rows, COLUMNS, "no releases yet; 'cleanroom ref list' shows what was recorded")


def show(context: Context, arguments: argparse.Namespace) -> None:
    """Show everything about one release."""
    view = release_view(context.database, arguments.product, arguments.ref)
    add_addresses(view, context.settings.repository_url)
    context.emit(view, describe(view))


def log(context: Context, arguments: argparse.Namespace) -> None:
    """Show the records of all services that belong to the ref event."""
    correlation = ref_events.correlation(_event(context, arguments.product, arguments.ref))
    sources = [Path(name) for name in arguments.sources or ()] or service_records.files(context.settings)
    records = service_records.of_release(sources, correlation)
    context.emit(
        [record.plain for record in records],
        "\n".join(map(readable, records)) or f"nothing was logged about {correlation}; --from reads other logs",
    )


def _event(context: Context, product: str, ref: str) -> int:
    """The ref event that a release was made of, or the latest one of a ref that became none. Raises InputError."""
    try:
        return releases.find(context.database, product, ref).ref_event_id
    except InputError:
        products.get(context.database, product)
        return ref_events.latest(context.database, product, ref).id


def wait(context: Context, arguments: argparse.Namespace) -> int:
    """Exit status 0 published (and installed), 1 failed, 2 refused or unknown, 3 held or cancelled, 4 timed out."""
    view = _end(context, arguments)
    context.emit(view, describe(view))
    return _DONE[view["state"]]


def watch(context: Context, arguments: argparse.Namespace) -> int:
    """Show the way until its end; the exit status is that of `wait`."""
    screen = watching.Screen(sys.stdout)
    view = _end(context, arguments, None if context.as_json else screen.show)
    context.emit(view, "")
    return _DONE[view["state"]]


def _end(
    context: Context, arguments: argparse.Namespace, show: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """The release once it is at its end; meanwhile `show` is given what it is, or its progress is told.

    Raises TimedOut and InputError.
    """
    deadline = time.monotonic() + arguments.timeout
    said = ""
    while True:
        try:
            view = release_view(context.database, arguments.product, arguments.ref)
        except InputError:
            # The tag may have been pushed a moment ago; it is waited for like the rest.
            _require_hope(context, arguments.product, arguments.ref)
            view = None
        state = "not recorded yet" if view is None else str(view["state"])
        line = state if view is None else f"{state}: {view['why']}"
        if line != said and show is None:
            context.progress(f"{arguments.product} {arguments.ref}: {printable(line)}")
            said = line
        if view is not None and show is not None:
            show(view)
        if view is not None and state in _DONE and not (arguments.installed and _is_being_installed(view)):
            add_addresses(view, context.settings.repository_url)
            return view
        if time.monotonic() > deadline:
            raise TimedOut(
                f"{arguments.product} {arguments.ref} is still: {printable(line)}",
                hint="cleanroom release show tells more; --timeout waits longer",
            )
        time.sleep(_LOOK)


def _is_being_installed(view: dict[str, Any]) -> bool:
    """Whether it is not known yet if consumers can install what is published, or it is being taken out."""
    return view["state"] == "published" and any(one["state"] in _NOT_KNOWN for one in view["canaries"])


def _require_hope(context: Context, product: str, ref: str) -> None:
    """Raise InputError if there will be no release: the product is unknown, or the ref was refused or ignored."""
    products.get(context.database, product)
    try:
        event = ref_events.latest(context.database, product, ref)
    except InputError:
        return
    if event.state in (RefEventState.REFUSED, RefEventState.IGNORED):
        raise InputError(f"{product} {ref} is {event.state}: {event.why}")


def retry(context: Context, arguments: argparse.Namespace) -> None:
    """Queue new attempts of the builds that did not pass."""
    release = releases.find(context.database, arguments.product, arguments.ref)
    again = releases.retry(context.database, release.id, getpass.getuser(), arguments.reason)
    told = f"{len(again)} builds of {release.product} {release.ref} are tried again"
    context.emit(
        {"builds": len(again)}, told if again else f"dependents of {release.product} {release.ref} are tried again"
    )


def approve(context: Context, arguments: argparse.Namespace) -> None:
    """Let a held release go on to its channel."""
    release = releases.find(context.database, arguments.product, arguments.ref)
    after = releases.approve(context.database, release.id, getpass.getuser(), arguments.reason)
    context.emit(
        {"approved": release.ref, "state": after.state, "why": after.why},
        f"{release.product} {release.ref} is approved; it is {after.state}: {printable(after.why)}",
    )


def hold(context: Context, arguments: argparse.Namespace) -> None:
    """Keep a release from being published."""
    release = releases.find(context.database, arguments.product, arguments.ref)
    releases.hold(context.database, release.id, getpass.getuser(), arguments.reason)
    context.emit({"held": release.ref}, f"{release.product} {release.ref} is held: {arguments.reason}")


def waive(context: Context, arguments: argparse.Namespace) -> None:
    """Let a release pass without one of its gates, for some time."""
    release = releases.find(context.database, arguments.product, arguments.ref)
    if arguments.channel not in (None, release.channel):
        _waive_promotion(context, release, arguments)
        return
    after = releases.waive(
        context.database,
        release.id,
        getpass.getuser(),
        arguments.gate,
        reason=arguments.reason,
        expires_at=_time(arguments.expires),
    )
    context.emit(
        {"waived": arguments.gate, "ref": release.ref, "state": after.state, "why": after.why},
        f"{arguments.gate} is waived for {release.product} {release.ref}; it is {after.state}: {printable(after.why)}",
    )


def _waive_promotion(context: Context, release: Release, arguments: argparse.Namespace) -> None:
    """Let a release be promoted without one of a channel's gates, for some time."""
    demands = _demands(context, release, arguments.channel)
    new = NewWaiver(arguments.gate, getpass.getuser(), arguments.reason, _time(arguments.expires))
    promotions.waive(context.database, release, arguments.channel, demands, new)
    context.emit(
        {"waived": new.gate, "ref": release.ref, "channel": arguments.channel, "state": release.state},
        f"{new.gate} is waived for the promotion of {release.product} {release.ref} to {arguments.channel}",
    )


def _demands(context: Context, release: Release, channel: str) -> tuple[str, ...]:
    """What a channel demands of a release. Raises InputError for what is no channel's name."""
    if not names.is_name(names.CHANNEL, channel):
        raise InputError(f"{channel[:100]!r} is no name of a channel")
    return demanded(context.settings, loader.from_json(release.recipe), channel)


def promote(context: Context, arguments: argparse.Namespace) -> None:
    """Publish the same bytes in a further channel."""
    release = releases.find(context.database, arguments.product, arguments.ref)
    demands = _demands(context, release, arguments.to)
    actor = getpass.getuser()
    asked = promotions.promote(context.database, release, arguments.to, demands, actor=actor, reason=arguments.reason)
    name = f"{release.product} {release.ref}"
    generation = None
    if asked.publication is not None:
        generation = _published(context, asked.publication, arguments.timeout, f"promotion of {name}")
    context.emit(
        {
            "product": release.product,
            "ref": release.ref,
            "channel": arguments.to,
            "generation": generation,
            "gates": [
                {"gate": one.gate, "target": one.target, "state": one.state, "why": one.why} for one in asked.gates
            ],
        },
        f"{name} is in {arguments.to}" + (f", since generation {generation}" if generation else " already"),
    )


def _published(context: Context, publication: int, timeout: float, what: str) -> int | None:
    """The generation that fulfils a publication. Raises InputError where it was refused, TimedOut."""

    def look() -> Publication | None:
        now = publications.get(context.database, publication)
        return None if now.state is PublicationState.PENDING else now

    done = asking.wait(context, look, timeout, what)
    if done.state is not PublicationState.PUBLISHED:
        raise InputError(f"{what}: {done.state}: {printable(done.why)}")
    return done.generation


def withdraw(context: Context, arguments: argparse.Namespace) -> None:
    """Take a release out of its channels, for good."""
    release = releases.find(context.database, arguments.product, arguments.ref)
    name = f"{release.product} {release.ref}"
    asked = ask_withdrawal(
        context.database,
        release,
        arguments.channel,
        actor=getpass.getuser(),
        reason=arguments.reason,
        forced=arguments.force,
    )
    done = asking.settled(context, asked, arguments.timeout, f"withdrawal of {name}")
    channels, warnings = (list(done.result.get(word, ())) for word in ("channels", "warnings"))
    context.emit(
        {
            "product": release.product,
            "ref": release.ref,
            "channels": channels,
            "generation": done.generation,
            "reason": done.reason,
            "warnings": warnings,
        },
        "\n".join(
            [
                f"{name} is withdrawn from {', '.join(channels)}",
                *(f"  warning: {printable(warning)}" for warning in warnings),
            ]
        ),
    )


def _time(text: str) -> datetime:
    """A time with its zone. Raises InputError."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise InputError(f"a time is written 2030-01-31T12:00:00Z, not {text[:100]!r}")
    return time


def describe(view: dict[str, Any]) -> str:
    """A release for people: the sentence first, then every phase of every build."""
    lines = [
        f"{view['product']} {view['ref']} ({view['version'] or 'version not known yet'}) is {view['state']}",
        f"  {printable(view['why'])}" if view["why"] else "",
        f"  next: {printable(view['next'])}",
        f"  commit {view['commit']}",
    ]
    compared = view["comparison"]
    if compared is not None and compared["against"] is not None:
        counts = [f"{compared[name]} {name.replace('_', ' ')}" for name in _COMPARED if compared[name]]
        lines.append(f"  since {compared['against']}: {', '.join(counts) or 'no tests'}")
        lines += [f"    regressed: {printable(name)}" for name in compared["names"]["regressed"]]
    if view["gates"]:
        lines += ["", _indent(table(view["gates"], ["gate", "target", "state", "why"]))]
    lines += [f"  {line}" for line in _together(view["union"])]
    for build in view["builds"]:
        lines += ["", f"{build['target']}, attempt {build['attempt']}: {build['outcome'] or 'running'}"]
        phases = [
            {
                **phase,
                "tests": "/".join(str(phase["tests"][word]) for word in ("passed", "failed", "skipped")),
            }
            for phase in build["phases"]
        ]
        if phases:
            lines.append(_indent(table(phases, ["name", "outcome", "seconds", "reset_seconds", "tests", "why"])))
        lines += [f"  {phase['name']} {printable(note)}" for phase in build["phases"] for note in _notes(phase)]
        lines += [f"  {line}" for phase in build["phases"] for line in _repeated(phase)]
        lines += [f"  {line}" for line in _reproduced(build["reproduction"])]
        if build["artifacts"]:
            lines.append(_indent(table(build["artifacts"], ["file", "size"])))
    for published in view["published"]:
        lines += ["", f"published in {published['channel']}, generation {published['generation']}"]
    lines += [
        f"  canary of {one['channel']}, generation {one['generation']}: {printable(one['said'])}"
        for one in view["canaries"]
    ]
    lines += [
        f"  what the client said is told in the log {phase['log']}"
        for one in view["canaries"]
        for target in one["targets"]
        for phase in target["phases"]
        if phase["log"]
    ]
    if view["provenance"]:
        lines += ["", "how its packages were built, signed ('cleanroom provenance verify' checks it):"]
        lines += [f"  {printable(address)}" for address in sorted({one["statement_url"] for one in view["provenance"]})]
    for gone in view["removed"]:
        lines += ["", f"not in {gone['channel']} since generation {gone['generation']}: {printable(gone['why'])}"]
    return "\n".join(line for line in lines if line is not None)


def _notes(phase: dict[str, Any]) -> list[str]:
    """The test cases of a phase that failed, with their places, and what is not among its cases."""
    notes = []
    for case in phase["failing"]:
        place = f", line {case['line']} of its log" if case["line"] else ""
        notes.append(f"{case['step']}{place}: {case['outcome']}: {case['name']}")
    return notes + [f"{step['name']}: {step['remark']}" for step in phase["steps"] if step["remark"]]


def _reproduced(found: dict[str, Any] | None) -> list[str]:
    """What became of building it again."""
    if found is None:
        return []
    if found["compared_at"] is None:
        why = f" ({printable(found['why'])})" if found["why"] else ""
        return [f"built again: {found['outcome'] or 'not yet'}{why}"]
    words = {True: "the same", False: "different"}
    lines = [f"built again: {file['file']}: {words[file['same']]}" for file in found["artifacts"]]
    return lines + ([f"what differs is told in the log {found['report']}"] if found["report"] else [])


def _together(found: dict[str, Any] | None) -> list[str]:
    """With which packages a release was installed together, and how that went."""
    lines = []
    for one in found["targets"] if found is not None else ():
        names = ", ".join(printable(name) for name in one["others"])
        lines.append(f"installed on {one['target']} together with {names}: {one['outcome'] or 'not yet'}")
        lines += [f"why it failed is told in the log {one['log']}"] if one["log"] else []
    return lines


def _repeated(phase: dict[str, Any]) -> list[str]:
    """What running a phase again has shown: each run, and the tests that failed in some."""
    lines = [
        f"{phase['name']}, replay {run['replay']}{' of the failed tests' if run['alone'] else ''}:"
        f" {run['outcome'] or 'running'}" + (f" ({printable(run['why'])})" if run["why"] else "")
        for run in phase["replays"]
    ]
    return lines + [
        f"  {test['outcome']}: {printable(test['name'])}, {test['failures']} of {test['runs']} runs failed"
        for test in phase["repeated_tests"]
    ]


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())

"""`cleanroom up | down | status | doctor | demo`: the whole of Cleanroom on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cleanroom_base import log_records
from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import Settings
from cleanroom_master import doctor, supervisor
from cleanroom_master.cli.frame import Commands, Context, table
from cleanroom_master.demo import Demo


def register(commands: Commands) -> None:
    """Declare the commands that have no noun."""
    start = commands.verb("up", up, "start everything on this machine", "cleanroom up --detach")
    start.add_argument("--detach", action="store_true", help="return once everything runs, and leave it running")
    start.add_argument(
        "--timeout", type=float, default=120.0, metavar="S", help="longest wait with --detach, in seconds"
    )
    commands.verb("down", down, "end everything that 'up' started", "cleanroom down")
    commands.verb("status", status, "what runs, and where its pages are", "cleanroom status --format json")
    commands.verb("doctor", check, "what works on this machine, what does not, and what to do", "cleanroom doctor")
    bundle = commands.verb(
        "support-bundle",
        support_bundle,
        "write what somebody needs to know who is to help, without secrets, into one file",
        "cleanroom support-bundle support.tar.gz",
    )
    bundle.add_argument("file", type=Path, metavar="FILE", help="a new file whose name ends with .tar.gz")
    commands.verb("web", web, "serve the web status here, where 'up' does not", "cleanroom web")
    show = commands.verb(
        "demo", demo, "take two products from a tag to a signed repository and into a fresh guest", "make demo"
    )
    show.add_argument(
        "--timeout", type=float, default=1500.0, metavar="S", help="longest time for all of it, in seconds"
    )


def up(context: Context, arguments: argparse.Namespace) -> None:
    """Start in the background, or run here until interrupted."""
    if not arguments.detach:
        context.progress("Cleanroom runs here; Ctrl-C ends it, 'cleanroom status' in another terminal tells more")
        settings = context.settings
        log_records.begin("supervisor")
        supervisor.supervise(settings)
        return
    supervisor.start_in_background(context.settings, timeout=arguments.timeout)
    status(context, arguments)


def down(context: Context, _: argparse.Namespace) -> None:
    """End everything."""
    ended = supervisor.stop(context.settings)
    context.emit({"ended": ended}, "ended" if ended else "nothing runs")


def status(context: Context, _: argparse.Namespace) -> int:
    """Exit status 0 when everything runs, 3 otherwise."""
    found = describe(context.settings)
    services = found["services"]
    lines = [
        f"Cleanroom is {found['state']}",
        f"  web         {found['web_url']}",
        f"  repository  {found['repository_url']}",
        f"  buildbot    {found['buildbot_url']}",
    ]
    if services:
        lines += ["", table(services, ["name", "state", "since", "process", "restarts"])]
    else:
        lines.append("  hint: cleanroom up --detach")
    lines += [f"warning: {warning}" for warning in found["warnings"]]
    context.emit(found, "\n".join(lines))
    return 0 if found["state"] == "running" else InfrastructureError.exit_status


def describe(settings: Settings) -> dict[str, Any]:
    """What `status` says: the state of the whole, the addresses, every service, and what needs somebody before long."""
    services = supervisor.service_states(settings)
    if not services:
        state = "stopped"
    elif all(service["state"] == "running" for service in services):
        state = "running"
    else:
        state = "degraded" if any(service["state"] == "failing" for service in services) else "starting"
    return {
        "state": state,
        "web_url": settings.web_url + "/",
        "repository_url": settings.repository_url + "/",
        "buildbot_url": settings.buildbot_url + "/",
        "services": services,
        "warnings": doctor.warnings(settings),
    }


def web(context: Context, _: argparse.Namespace) -> None:
    """Serve the pages until interrupted."""
    from cleanroom_master.web import serving

    context.progress(f"{context.settings.web_url}/; Ctrl-C ends it")
    log_records.begin("web")
    serving.serve(context.settings)


def check(context: Context, _: argparse.Namespace) -> int:
    """Exit status 0 when everything that is needed works, 3 otherwise."""
    findings = doctor.examine(context.settings)
    lines = []
    for finding in findings:
        mark = "ok  " if finding.works else ("    " if finding.optional else "FAIL")
        lines.append(f"{mark}  {finding.what}: {finding.detail}")
        if not finding.works and finding.remedy:
            lines.append(f"      do: {finding.remedy}")
    context.emit(
        [finding.plain for finding in findings],
        "\n".join(lines),
    )
    return 0 if all(finding.works or finding.optional for finding in findings) else InfrastructureError.exit_status


def support_bundle(context: Context, arguments: argparse.Namespace) -> None:
    """Write versions, settings, states, sizes and the ends of logs; what is secret is masked."""
    from cleanroom_master import support_bundle as bundle

    settings = context.settings
    context.progress("looking at everything; that takes some seconds")
    members = bundle.write(
        settings,
        arguments.file,
        {
            "status": lambda: describe(settings),
            "doctor": lambda: [finding.plain for finding in doctor.examine(settings)],
        },
    )
    told = f"{arguments.file} has {len(members)} files; nothing secret that is known here is in it, but look yourself"
    context.emit({"file": arguments.file, "members": members}, told)


def demo(context: Context, arguments: argparse.Namespace) -> None:
    """Show everything once."""
    Demo(context.settings, timeout=arguments.timeout).run()

"""The command `cleanroom-worker`: what a worker's host can be told to do, without a database.

Events go to standard output, one JSON object a line; messages for people go to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType

from cleanroom_base import health, log_records, settings
from cleanroom_base.errors import CleanroomError, InfrastructureError, InputError
from cleanroom_base.log_records import about
from cleanroom_base.parent import end_with_parent
from cleanroom_images.catalogue import Catalogue
from cleanroom_recipes import events, request
from cleanroom_recipes.model import Isolation, Network, Outcome
from cleanroom_recipes.request import PhaseRequest
from cleanroom_workers import chore, declarations, housekeeping, phase_server, room
from cleanroom_workers.guest import Guest
from cleanroom_workers.host import Host
from cleanroom_workers.layer_maker import LayerMaker
from cleanroom_workers.locks import locked
from cleanroom_workers.phase import Cancelled, Surroundings, run_phase
from cleanroom_workers.pool import Pool, Room, watch
from cleanroom_workers.records import Owner
from cleanroom_workers.refresh import refresh
from cleanroom_workers.report import Report

EXIT_STATUS = {
    Outcome.PASSED: 0,
    Outcome.SKIPPED: 0,
    Outcome.FAILED: 1,
    Outcome.INFRASTRUCTURE: 3,
    # As a shell says it of a program that SIGTERM ended.
    Outcome.CANCELLED: 128 + signal.SIGTERM,
}

# The pool looks by itself so often, in seconds, and waits so long for one before it to end.
_POOL_PAUSE = 10.0
_POOL_TIMEOUT = 60.0
# One thing that the pool does may take so long, in seconds: an emulated guest that boots.
_LONGEST_START = 900.0

# How long a phase waits for room on this host's disk, in seconds: less than the master's patience with a worker.
_ROOM_PATIENCE = 240.0

_log = logging.getLogger(__name__)

_DESCRIPTION = "Do the work of a host: run phases of builds in clean guests."
_EXAMPLES = """\
examples:
  cleanroom-worker run-phase request.json
  cleanroom-worker run-phase request.json | jq -r 'select(.event == "output").text'

exit status:
  0 passed or skipped, 1 the product failed, 2 the request is not valid, 3 infrastructure, 143 cancelled
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except Cancelled:
        # It came before the phase began or after it ended: there is nothing to tell.
        return EXIT_STATUS[Outcome.CANCELLED]
    except BrokenPipeError:
        # Who started the phase is gone, and so is the guest; what Python still holds goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return InfrastructureError.exit_status
    except CleanroomError as error:
        _say(f"cleanroom-worker: {error}")
        return error.exit_status


def parser() -> argparse.ArgumentParser:
    """The command line, also for whoever describes it."""
    whole = argparse.ArgumentParser(
        prog="cleanroom-worker",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    phase = commands.add_parser(
        "run-phase",
        help="run one phase in a clean guest and print its events",
        description="Run one phase in a clean guest and print its events as JSON lines.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    phase.add_argument("request", type=Path, metavar="REQUEST.json", help="what to run, as the master wrote it")
    phase.set_defaults(run=_run_phase)
    for_layer = "make the layer from which a kind of guests starts sooner"
    making = commands.add_parser("layer", help=for_layer, description=for_layer)
    making.add_argument("key", metavar="KIND", help="the kind's key, as the pool's process knows it")
    making.set_defaults(run=_layer)
    for_images = "build images anew, and switch to those that are good"
    refreshing = commands.add_parser("refresh", help=for_images, description=for_images)
    refreshing.add_argument("names", nargs="*", metavar="IMAGE", help="default: all that are built from a description")
    refreshing.set_defaults(run=_refresh)
    for_seals = "compare all content of images with what was sealed"
    verifying = commands.add_parser("verify", help=for_seals, description=for_seals)
    verifying.add_argument("names", nargs="+", metavar="IMAGE")
    verifying.set_defaults(run=_verify)
    for_house = "remove what this host has not used for long"
    tidying = commands.add_parser("housekeeping", help=for_house, description=for_house)
    tidying.add_argument("--dry-run", action="store_true", help="only say what that is")
    tidying.set_defaults(run=_housekeeping)
    for name, run, help_text in (
        ("pool", _pool, "keep guests ready, and take away what nobody claims, until it is ended"),
        ("serve", _serve, "keep all processes of this host running, until it is ended"),
        ("phases", _phases, "start phases without their waiting for Python, until it is ended"),
        ("start", _start, "have everything run that guests need: libvirt, network, firewall, proxy"),
        ("stop", _stop, "end all guests of this installation, and what 'start' started"),
        ("reap", _reap, "end every guest whose owner is gone"),
    ):
        commands.add_parser(name, help=help_text, description=help_text).set_defaults(run=run)
    return whole


def _start(_: argparse.Namespace) -> int:
    Host.open(settings.load()).close()
    return 0


def _stop(_: argparse.Namespace) -> int:
    Host(settings.load()).stop()
    return 0


def _reap(_: argparse.Namespace) -> int:
    host = Host(settings.load())
    for name in host.reap():
        _say(f"ended {name}, which nobody claimed")
    host.close()
    return 0


def _pool(_: argparse.Namespace) -> int:
    log_records.begin("guests")
    site = settings.load()
    host = Host(site)
    ended: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        ended.append(number)
        host.bell.ring()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    end_with_parent()
    spare = Room(site.whole("worker.memory_reserve"), lambda: room.look(site).low)
    maker = LayerMaker(site.state / "logs/services/layers.log")
    pool = Pool(host, host.demand, spare, site.whole("worker.parallel"), maker)
    keeper = housekeeping.Housekeeper(site)
    chores = [
        chore.refresh(host.catalogue, site.number("images.refresh"), site.state / "logs/services", spare.disk_low),
        chore.verify(host.catalogue, site.number("images.verify"), site.state / "logs/services"),
    ]
    report = Report(host, site.state / "worker/info", site.whole("worker.parallel"))
    with locked(host.pool_lock, timeout=_POOL_TIMEOUT), host.bell.heard() as bell:
        try:
            pulse = health.Server.begin(site, "guests", patience=_LONGEST_START)
            for done in watch([pool, *chores, keeper, report], bell, pause=_POOL_PAUSE, ended=ended, pulse=pulse):
                _log.info("%s", done)
        finally:
            maker.end()
            keeper.end()
            for each in chores:
                each.end()
            for record in host.ready():
                host.discard(record.name)
            host.close()
    return 0


def _serve(_: argparse.Namespace) -> int:
    from cleanroom_workers.serving import serve

    serve(settings.load())
    return 0


def _phases(_: argparse.Namespace) -> int:
    log_records.begin("phases")
    end_with_parent()
    site = settings.load()
    place = site.runtime / phase_server.SOCKET
    place.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    pulse = health.Pulse("phases")
    with health.Server(site, pulse, "phases") as answering:
        phase_server.serve(place, main, answering, lambda: pulse.turn("a phase that begins", within=phase_server.TURN))
    return 0


def _layer(options: argparse.Namespace) -> int:
    host = Host(settings.load())
    with cancelled_by_signals():
        for wish in host.demand.wishes():
            if wish.kind.key == options.key:
                host.make_layer(wish.kind)
                break
        else:
            raise InputError(f"nobody asked lately for guests of the kind {options.key}")
    host.close()
    return 0


def _refresh(options: argparse.Namespace) -> int:
    status = 0
    with cancelled_by_signals():
        for done in refresh(settings.load(), options.names, _say):
            _say(f"{done.name} {done.outcome}" + (f": {done.why}" if done.why else ""))
            status = InfrastructureError.exit_status if done.outcome == "refused" else status
    return status


def _verify(options: argparse.Namespace) -> int:
    site = settings.load()
    catalogue = Catalogue.of(site)
    status = 0
    for name in options.names:
        try:
            catalogue.verify(name)
            _say(f"{name} is what was sealed")
        except CleanroomError as error:
            _say(str(error))
            status = error.exit_status
    return status


def _housekeeping(options: argparse.Namespace) -> int:
    """What went, or would go, as one JSON array."""
    found = housekeeping.keep_house(settings.load(), remove=not options.dry_run)
    sys.stdout.write(json.dumps([asdict(one) for one in found]) + "\n")
    return 0


def _run_phase(options: argparse.Namespace) -> int:
    site = settings.load()
    wanted = request.read(options.request)
    if not log_records.begun():
        # Nobody forked this process: it was started, and what it says is read by Buildbot.
        log_records.begin("phases")
    with cancelled_by_signals() as shield, _about(wanted):
        surroundings = Surroundings(
            reset=lambda wanted: _reset(site, wanted),
            log_limit=site.whole("worker.log_limit"),
            artifact_limit=site.whole("worker.artifact_limit"),
            shield=shield,
            repository=lambda: Host(site).repository,
        )
        return EXIT_STATUS[run_phase(wanted, surroundings, _tell)]


def _about(wanted: PhaseRequest) -> contextlib.AbstractContextManager[None]:
    """Have all log records of this process be about the phase that it runs."""
    return log_records.bound(
        correlation=wanted.correlation,
        product=wanted.product,
        ref=wanted.ref,
        target=str(wanted.target),
        attempt=wanted.attempt,
        phase=wanted.phase.name,
    )


def _reset(site: settings.Settings, wanted: PhaseRequest) -> Guest:
    phase, digest = wanted.phase, wanted.conditions.image_digest
    host = Host(site, Catalogue.of(site, {phase.image: digest} if digest else None))
    limits = replace(
        host.limits,
        **{
            name: value
            for name in ("processors", "memory", "disk", "processes")
            if (value := getattr(phase.limits, name)) is not None
        },
    )
    # A disk that fills while a build is under way is no reason to fail: others end, and housekeeping makes room.
    room.wait(site, _ROOM_PATIENCE)
    return host.reset(
        phase.image,
        # What a recipe leaves open, the site may decide.
        isolation=site.text("worker.isolation") if phase.isolation is Isolation.AUTO else phase.isolation.value,
        network=_network(wanted),
        owner=Owner.current(),
        limits=limits,
        preparation=phase.preparation,
        declared=declarations.programs(wanted),
    )


def _network(wanted: PhaseRequest) -> str:
    """What the guest reaches: besides the mirror also the published repository, where it is a source of packages."""
    phase = wanted.phase
    widened = wanted.repository is not None and phase.network is Network.MIRROR
    return "repository" if widened else phase.network.value


def _say(text: str) -> None:
    """Tell people: standard output is for events."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _tell(event: events.Event) -> None:
    """Tell the master of an event; what it says of the phase as a whole is logged here, too."""
    match event:
        case events.PhaseStarted():
            _log.info("phase %s begins", event.phase)
        case events.Reset():
            told = (event.guest, event.method, event.seconds)
            _log.info("guest %s is clean (%s) after %.2f s", *told, extra=about(guest=event.guest))
        case events.PhaseFinished():
            _log.info("phase ended: %s%s", event.outcome, f": {event.why}" if event.why else "")
    _print_event(event)


def _print_event(event: events.Event) -> None:
    sys.stdout.buffer.write(events.encode(event))
    sys.stdout.buffer.flush()


@contextlib.contextmanager
def cancelled_by_signals() -> Iterator[Callable[[], None]]:
    """Have the first SIGTERM, SIGINT or SIGHUP raise Cancelled here, and later ones do nothing.

    Gives a function after which none does anything any more, so that cleaning up is not interrupted.
    """
    caught = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def shield() -> None:
        for number in caught:
            signal.signal(number, signal.SIG_IGN)

    def cancel(number: int, _frame: FrameType | None) -> None:
        shield()
        raise Cancelled(f"the phase was cancelled by {signal.Signals(number).name}")

    before = {number: signal.signal(number, cancel) for number in caught}
    try:
        yield shield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

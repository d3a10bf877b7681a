"""Runs all processes of one machine: the embedded mode.

The processes meet in tables only, so the supervisor knows nothing of what they do: it starts them, starts them
again when they end, and says in a file what it sees. Whoever wants more uses `docker-compose.yml`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import signal
import socket
import sys
import sysconfig
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cleanroom_base import log_records, run
from cleanroom_base.errors import CleanroomError, InfrastructureError, InputError, TimedOut, causes
from cleanroom_base.settings import Settings, load
from cleanroom_base.tending import GRACE, STEADY, Service, Tended, end_all
from cleanroom_db import cluster, migrate
from cleanroom_master import program, systemd
from cleanroom_master.places import Places
from cleanroom_master.publish import agent
from cleanroom_workers import host_services

# What is run, see `program`: an upgrade compares it with what is installed.
PROGRAM = "program.json"
PORTS = ("master.port", "master.worker_port", "repository.port", "web.port")
# What an earlier supervisor ran may need so long, in seconds, to end after it.
_PORTS_BECOME_FREE = 5.0
_TICK = 0.2
_DATABASE_EVERY = 2.0


_log = logging.getLogger(__name__)


class AlreadyRunning(InfrastructureError):
    """Cleanroom already runs on this state directory."""


def services(settings: Settings) -> tuple[Service, ...]:
    """The processes of the embedded mode, in the order of their start."""
    python = sys.executable
    return (
        Service("refs", (python, "-m", "cleanroom_master.refs")),
        Service(
            "master",
            (python, "-m", "cleanroom_master.buildbot"),
            address=(settings.text("master.bind"), settings.whole("master.port")),
        ),
        *host_services.services(),
        Service("publisher", (python, "-m", "cleanroom_master.publisher")),
        Service("notifications", (python, "-m", "cleanroom_master.notifications")),
        Service(
            "repository",
            (python, "-m", "cleanroom_master.repository_server"),
            address=(settings.text("repository.bind"), settings.whole("repository.port")),
        ),
        Service(
            "web",
            (python, "-m", "cleanroom_master.web"),
            address=(settings.text("web.bind"), settings.whole("web.port")),
        ),
        *_delivery(settings),
    )


def _delivery(settings: Settings) -> tuple[Service, ...]:
    """What brings generations elsewhere, where the site wants that."""
    if settings.optional("delivery.url") is None:
        return ()
    return (Service("delivery", (sys.executable, "-m", "cleanroom_master.delivery")),)


def taken_ports(settings: Settings) -> dict[str, str]:
    """The settings whose ports cannot be listened at now, each with the reason."""
    taken = {}
    for key in PORTS:
        address = (settings.text(f"{key.partition('.')[0]}.bind"), settings.whole(key))
        with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                taken[key] = f"{address[0]}:{address[1]}: {error.strerror}"
    return taken


def prepare(settings: Settings) -> None:
    """Make what the processes need: directories, the worker's password, the database with its newest schema."""
    if restore_mark(settings).exists():
        raise InputError(
            f"a backup was not put back to its end: {settings.state} is not whole",
            hint="run cleanroom restore once more",
        )
    places = Places(settings)
    for directory in (settings.state, places.run, places.logs):
        directory.mkdir(parents=True, exist_ok=True)
    places.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not settings.worker_password.exists():
        descriptor = os.open(settings.worker_password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
    cluster.ensure(settings)
    migrate.migrate(settings)


def restore_mark(settings: Settings) -> Path:
    """Is there while a backup is being put back, and after that was broken off: the state is not whole then."""
    return Places(settings).run / "restoring"


def supervise(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; then end everything. Raises AlreadyRunning."""
    ended: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: ended.append(received))
    with _only_one(settings):
        _require_not_by_systemd(settings)
        running = [Tended(service) for service in services(settings)]
        _require_free_ports(settings)
        try:
            prepare(settings)
            (Places(settings).run / PROGRAM).write_text(json.dumps(program.digests()))
            next_look = time.monotonic() + _DATABASE_EVERY
            while not ended:
                for one in running:
                    _tend_if_possible(one, settings)
                if time.monotonic() > next_look:
                    _tend_database(settings)
                    for one in running:
                        run.set_aside(Places(settings).service_log(one.service.name))
                    next_look = time.monotonic() + _DATABASE_EVERY
                _report(settings, running)
                time.sleep(_TICK)
        finally:
            _end(settings, running)


def start_in_background(settings: Settings, *, timeout: float) -> None:
    """Start a supervisor that outlives this process, and wait until its services answer.

    Raises AlreadyRunning, TimedOut, or InfrastructureError with the end of the supervisor's log.
    """
    if running(settings):
        raise AlreadyRunning(f"Cleanroom already runs on {settings.state}", hint="cleanroom status, cleanroom down")
    _require_not_by_systemd(settings)
    log = Places(settings).run / "supervisor.log"
    process = run.start([sys.executable, "-m", "cleanroom_master.supervisor"], log=log)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise InfrastructureError(f"the supervisor ended at once:\n{tail(log)}", hint="cleanroom doctor")
        if states := service_states(settings):
            failing = [state for state in states if state["state"] == "failing"]
            if failing:
                name = str(failing[0]["name"])
                raise InfrastructureError(
                    f"{name} does not start:\n{tail(Places(settings).service_log(name))}",
                    hint="mend it and 'cleanroom down'; the other services go on",
                )
            if all(state["state"] == "running" for state in states):
                return
        time.sleep(_TICK)
    raise TimedOut(f"not everything runs after {timeout:.0f} s", hint=f"see {log} and 'cleanroom status'")


def stop(settings: Settings) -> bool:
    """End the supervisor of this state directory and all it runs; False when nothing runs. Raises TimedOut."""
    pid = running(settings)
    if pid is None:
        _require_not_by_systemd(settings)
        return _end_what_is_left(settings)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 3 * GRACE
    while running(settings) is not None:
        if time.monotonic() > deadline:
            raise TimedOut(f"the supervisor (process {pid}) does not end", hint="see its log in the state directory")
        time.sleep(_TICK)
    return True


def running(settings: Settings) -> int | None:
    """The process id of the supervisor that runs on this state directory, if one does."""
    lock = Places(settings).run / "supervisor.lock"
    try:
        with lock.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except FileNotFoundError:
        pass
    return None


def service_states(settings: Settings) -> list[dict[str, object]]:
    """What the supervisor last said of its services: name, state (starting, running, failing), since, process."""
    if running(settings) is None:
        return systemd.service_states(settings)
    try:
        states: list[dict[str, object]] = json.loads((Places(settings).run / "services.json").read_text())
    except (FileNotFoundError, ValueError):
        return []
    return states


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log file."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16384))
            found = file.read().decode(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return "(no log)"
    records = ((line, log_records.read(line)) for line in found)
    return "\n".join(line if record is None else log_records.readable(record) for line, record in records)


@contextlib.contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    run_directory = Places(settings).run
    run_directory.mkdir(parents=True, exist_ok=True)
    with (run_directory / "supervisor.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"Cleanroom already runs on {settings.state}", hint="cleanroom status") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        (run_directory / "services.json").unlink(missing_ok=True)
        yield
        file.truncate(0)


def _require_not_by_systemd(settings: Settings) -> None:
    if systemd.active(settings):
        raise AlreadyRunning(
            f"Cleanroom runs on {settings.state} as {systemd.TARGET} of systemd",
            hint=f"cleanroom status; systemctl stop {systemd.TARGET} ends it",
        )


def _require_free_ports(settings: Settings) -> None:
    deadline = time.monotonic() + _PORTS_BECOME_FREE
    while taken := taken_ports(settings):
        if time.monotonic() > deadline:
            reasons = "; ".join(f"{key} is {reason}" for key, reason in taken.items())
            raise InfrastructureError(
                f"something else uses a port: {reasons}", hint=f"end it, or set {', '.join(taken)} to a free port"
            )
        time.sleep(_TICK)


def _tend_if_possible(one: Tended, settings: Settings) -> None:
    """Tend a service; one that cannot be started now (the disk is full, for example) is tried again soon."""
    places = Places(settings)
    try:
        one.tend(places.service_log(one.service.name), temporary=places.temporary(one.service.name))
    except (OSError, CleanroomError) as error:
        _log.error("%s cannot be started: %s", one.service.name, error)
        one.next_start = time.monotonic() + _DATABASE_EVERY


def _tend_database(settings: Settings) -> None:
    """Start the private database again when it ended; trouble with it is tried again at the next look."""
    if cluster.is_private(settings) and not cluster.status(settings).running:
        try:
            cluster.ensure(settings)
        except (OSError, CleanroomError) as error:
            _log.error("the database does not start: %s", error)


def _report(settings: Settings, running: list[Tended]) -> None:
    """Write what is seen, by rename, when it differs from what stands there; on a full disk at a later look."""
    file = Places(settings).run / "services.json"
    offset = time.time() - time.monotonic()
    states = [
        {
            "name": one.service.name,
            "state": _state(one),
            "since": datetime.fromtimestamp(round(one.since + offset), UTC).isoformat().replace("+00:00", "Z"),
            "process": one.process.pid if one.process else None,
            "restarts": one.restarts,
        }
        for one in running
    ]
    content = json.dumps(states)
    with contextlib.suppress(FileNotFoundError):
        if file.read_text() == content:
            return
    fresh = file.with_suffix(".new")
    with contextlib.suppress(OSError):
        fresh.write_text(content)
        fresh.rename(file)


def _state(one: Tended) -> str:
    if one.restarts >= 3 and (one.process is None or time.monotonic() - one.since < STEADY):
        return "failing"
    return "running" if one.process is not None and _ready(one) else "starting"


def _ready(one: Tended) -> bool:
    """Whether a service that lives does its work: it answered once, or, if nobody asks it, lived a moment."""
    address = one.service.address
    if address is None:
        # A process that ends does so in its first moments: bad settings, for example.
        return time.monotonic() - one.since > 1.0
    if not one.answered:
        with contextlib.suppress(OSError):
            socket.create_connection(_reachable(address), timeout=_TICK).close()
            one.answered = True
    return one.answered


def _reachable(bind: tuple[str, int]) -> tuple[str, int]:
    """Where this machine reaches what listens at `bind`."""
    return ({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind[0], bind[0]), bind[1])  # noqa: S104 - not listened at


def _end(settings: Settings, running: list[Tended]) -> None:
    """End the services together, the database after them, and what they left on the host."""
    end_all(running)
    _end_surroundings(settings)


def _end_what_is_left(settings: Settings) -> bool:
    """End what a supervisor that was killed left, or a person's command started; False if there is nothing."""
    if not settings.runtime.exists() or not settings.state.exists():
        return False
    left = cluster.status(settings).running
    with _only_one(settings):
        _end_surroundings(settings)
    return left


def _end_surroundings(settings: Settings) -> None:
    """End what is no child of ours: guests, libvirt, proxy, the agent of a publisher that was killed, database."""
    worker = Path(sysconfig.get_path("scripts")) / "cleanroom-worker"
    for end in (
        lambda: run.run([worker, "stop"], timeout=60, check=True),
        lambda: agent.end(agent.site_home(settings)),
        lambda: cluster.stop(settings),
    ):
        try:
            end()
        except CleanroomError as error:
            _log.error("while ending: %s", error)


def main() -> None:
    """Supervise in this process."""
    log_records.begin("supervisor")
    try:
        supervise(load())
    except CleanroomError as error:
        _log.critical("%s", "\n".join(causes(error)))
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()

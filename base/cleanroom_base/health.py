"""Whether a process lives and its loops still turn: each says so itself, on a socket of its own.

    curl --unix-socket /run/cleanroom-.../health/refs.sock http://localhost/health     (or /metrics)

A loop says before each wait what it waits for, and how long that takes at most. One that is overdue is stuck, though
its process lives; a process that does not even answer (stopped, or thrashing) is stuck as a whole.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, cast

from cleanroom_base.settings import Settings

# Beside the wait that a loop announces, a turn may take so long, in seconds: a database that restarts is waited for.
PATIENCE = 180.0
# A process that lives answers within this time, in seconds, also on a machine that is busy.
ANSWER = 5.0
_REQUEST = 2.0
_SUFFIX = ".sock"


class State(StrEnum):
    """What is known of a process."""

    HEALTHY = "healthy"
    STUCK = "stuck"
    NOT_RUNNING = "not running"


@dataclass
class _Loop:
    """One loop of a process; times are by the monotonic clock, in seconds."""

    turned: float
    limit: float
    waits_for: str
    turns: int = 0

    def overdue(self) -> bool:
        return time.monotonic() - self.turned > self.limit


class Pulse:
    """What one process says of itself."""

    def __init__(self, name: str, *, patience: float = PATIENCE) -> None:
        """`patience`: how long a turn may take beside the wait that its loop announces, in seconds."""
        self._name = name
        self._patience = patience
        self._since = datetime.now(UTC)
        self._loops: dict[str, _Loop] = {}

    def turn(self, waits_for: str, *, within: float, loop: str = "main") -> None:
        """A loop came round, and now waits for something, for at most `within` seconds."""
        before = self._loops.get(loop)
        turns = 1 if before is None else before.turns + 1
        self._loops[loop] = _Loop(time.monotonic(), within + self._patience, waits_for, turns)

    def report(self) -> dict[str, Any]:
        """All that is known, for `/health`."""
        now, clock = time.monotonic(), time.time()
        loops = sorted(self._loops.items())
        return {
            "name": self._name,
            "state": State.STUCK if any(loop.overdue() for _, loop in loops) else State.HEALTHY,
            "process": os.getpid(),
            "since": _iso(self._since),
            "loops": [
                {
                    "name": name,
                    "turned_at": _iso(datetime.fromtimestamp(clock - (now - loop.turned), UTC)),
                    "seconds": round(now - loop.turned, 3),
                    "limit": loop.limit,
                    "turns": loop.turns,
                    "waits_for": loop.waits_for,
                }
                for name, loop in loops
            ],
        }

    def metrics(self) -> bytes:
        """The same for Prometheus, with what its own library says of a process."""
        # Loaded when first asked for: most processes are never asked.
        from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest

        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        labels = ["service", "loop"]
        ago = Gauge("cleanroom_loop_seconds", "Seconds since a loop came round.", labels, registry=registry)
        limit = Gauge("cleanroom_loop_limit_seconds", "Seconds after which it is stuck.", labels, registry=registry)
        turns = Counter("cleanroom_loop_turns", "How often it came round.", labels, registry=registry)
        for name, loop in sorted(self._loops.items()):
            ago.labels(self._name, name).set(time.monotonic() - loop.turned)
            limit.labels(self._name, name).set(loop.limit)
            turns.labels(self._name, name).inc(loop.turns)
        return generate_latest(registry)


class Server(socketserver.UnixStreamServer):
    """Answers for a process on its socket: from a thread of its own, or, where a process forks, from its one loop."""

    request_queue_size = 16

    def __init__(self, settings: Settings, pulse: Pulse, name: str) -> None:
        self.pulse = pulse
        place = socket_of(settings, name)
        place.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            super().__init__(str(place), _Request)
        finally:
            os.umask(before)

    @classmethod
    def begin(cls, settings: Settings, name: str, *, patience: float = PATIENCE) -> Pulse:
        """Have a thread answer for this process until it ends; returns what its loops tell that they turn."""
        pulse = Pulse(name, patience=patience)
        server = cls(settings, pulse, name)
        threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
        return pulse

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked does not wait any more: that is nobody's trouble."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Request(BaseHTTPRequestHandler):
    timeout = _REQUEST

    def do_GET(self) -> None:
        """Answer one question."""
        pulse = cast(Server, self.server).pulse
        if self.path == "/health":
            report = pulse.report()
            healthy = report["state"] == State.HEALTHY
            self._send(HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE, json.dumps(report).encode())
        elif self.path == "/metrics":
            self._send(HTTPStatus.OK, pulse.metrics(), "text/plain; version=0.0.4; charset=utf-8")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send(self, status: HTTPStatus, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing: it is asked every few seconds."""

    def address_string(self) -> str:
        """Who asks has no address."""
        return "local"


def socket_of(settings: Settings, name: str) -> Path:
    """Where a process answers."""
    return settings.runtime / "health" / f"{name}{_SUFFIX}"


def known(settings: Settings) -> list[str]:
    """The processes that were started here, whatever became of them."""
    return sorted(place.name.removesuffix(_SUFFIX) for place in socket_of(settings, "any").parent.glob(f"*{_SUFFIX}"))


def ask(settings: Settings, names: Sequence[str], *, timeout: float = ANSWER) -> list[dict[str, Any]]:
    """What processes say of themselves; of one that does not answer within `timeout` seconds, what that means."""
    return [_ask(socket_of(settings, name), name, timeout) for name in names]


def _ask(place: Path, name: str, timeout: float) -> dict[str, Any]:
    silent: dict[str, Any] = {"name": name, "process": None, "since": None, "loops": []}
    connection = _Connection(place, timeout)
    try:
        connection.request("GET", "/health")
        report: dict[str, Any] = json.loads(connection.getresponse().read())
    except (FileNotFoundError, ConnectionRefusedError):
        return {**silent, "state": State.NOT_RUNNING}
    except (OSError, ValueError, http.client.HTTPException):
        return {**silent, "state": State.STUCK}
    finally:
        connection.close()
    return report


class _Connection(http.client.HTTPConnection):
    """HTTP to a socket that has a path."""

    def __init__(self, place: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._place = place

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        with contextlib.ExitStack() as failed:
            failed.callback(self.sock.close)
            self.sock.connect(str(self._place))
            failed.pop_all()


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

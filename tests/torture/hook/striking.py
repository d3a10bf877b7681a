"""Has a process kill itself, or stand still for a moment, at the named boundary that is armed.

The driver arms one boundary by a file in the control directory: `armed`, with the boundary's place, what to do
("kill", or "hold" for so many seconds), as JSON. Who comes to the place first renames it to `struck`, and so it
happens once. With TORTURE_TRACE=DIRECTORY what could be a boundary is written down, for whoever looks for new ones.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import boundaries

_CALLS = frozenset({"os.rename", "os.link", "os.symlink", "os.mkdir", "open", "subprocess.Popen", "os.exec"})
_STARTS = frozenset({"os.exec", "os.posix_spawn", "subprocess.Popen"})
_MODULES = {
    "cleanroom_master.refs": "refs",
    "cleanroom_master.buildbot": "master",
    "cleanroom_master.publisher": "publisher",
    "cleanroom_master.notifications": "notifications",
    "cleanroom_master.web": "web",
}
_WATCHED = _CALLS | _STARTS
# What this thread does at the moment is the hook's own work.
_own = threading.local()


def service_of(words: list[str]) -> str | None:
    """Which service of the product a command line is."""
    for before, word in itertools.pairwise(words):
        if before == "-m" and word in _MODULES:
            return _MODULES[word]
    for word in words:
        if word.startswith("--python=") and word.endswith("buildbot.tac"):
            return "worker" if "workers" in word else "master"
    programs = [Path(word).name for word in words[:3]]
    if "cleanroom-worker" in programs:
        return {"pool": "guests", "phases": "phases"}.get(words[-1])
    return None


def install(control: str) -> None:
    """Watch this process, if it is a service with boundaries."""
    service = service_of(sys.orig_argv)
    if service is None:
        return
    hook = _Hook(control, service)
    sys.addaudithook(hook.called)
    if hook.statements:
        _watch_statements(hook)


class _Hook:
    """What is watched in this process."""

    def __init__(self, control: str, service: str) -> None:
        mine = boundaries.of_service(service)
        self.calls = [one for one in mine if one.event]
        self.statements = [one for one in mine if not one.event]
        self._armed = Path(control, "armed")
        self._struck = Path(control, "struck")
        trace = os.environ.get("TORTURE_TRACE")
        self._trace = Path(trace, service) if trace else None
        self._after: boundaries.Boundary | None = None

    def called(self, event: str, arguments: tuple[Any, ...]) -> None:
        """A call is about to be made."""
        if event not in _WATCHED or getattr(_own, "work", False):
            return
        _own.work = True
        try:
            self._look(event, arguments)
        finally:
            _own.work = False

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        after, self._after = self._after, None
        if after is not None:
            self.reached(after)
        text = _told(event, arguments)
        if self._trace:
            self.note(f"{event} {text}")
        for one in self.calls:
            fits = one.event == event or (one.event == "start" and event in _STARTS)
            if fits and one.pattern.search(text):
                if one.when == boundaries.AFTER_CALL:
                    if self._is_armed(one):
                        self._after = one
                else:
                    self.reached(one)

    def note(self, text: str) -> None:
        """Write down what could be a boundary."""
        if self._trace:
            with self._trace.open("a", encoding="utf-8") as file:
                file.write(f"{time.monotonic():.3f} {os.getpid()} {text[:300]}\n".replace("\n", " ") + "\n")

    def _is_armed(self, boundary: boundaries.Boundary) -> bool:
        return self._order(boundary) is not None

    def _order(self, boundary: boundaries.Boundary) -> dict[str, Any] | None:
        try:
            order: dict[str, Any] = json.loads(self._armed.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return order if order["place"] == boundary.place else None

    def reached(self, boundary: boundaries.Boundary) -> None:
        """The process is at a boundary: do there what is asked, if this one is armed and nobody was here before."""
        before, _own.work = getattr(_own, "work", False), True
        try:
            order = self._order(boundary)
            if order is None:
                return
            try:
                self._armed.rename(self._struck)
            except OSError:
                return
            if order["action"] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            # Until the driver has done what it came for, and never for long.
            deadline = time.monotonic() + float(order["seconds"])
            while self._struck.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            _own.work = before


def _told(event: str, arguments: tuple[Any, ...]) -> str:
    """An event's arguments as one text: paths, or the words of a command."""
    if event == "subprocess.Popen":
        return " ".join(_text(word) for word in arguments[1])
    if event in ("os.exec", "os.posix_spawn"):
        return " ".join(_text(word) for word in arguments[1])
    if event == "open":
        return _text(arguments[0])
    return " ".join(_text(one) for one in arguments[:2])


def _text(value: Any) -> str:
    return os.fsdecode(value) if isinstance(value, bytes | str | os.PathLike) else str(value)


def _watch_statements(hook: _Hook) -> None:
    """See the statements of all connections of the database's driver, and the ends of their transactions."""
    import psycopg2
    import psycopg2.extensions

    connect = psycopg2.connect

    def connected(*values: Any, **named: Any) -> Any:
        # Whoever connects may have classes of its own for both.
        connection = named.get("connection_factory") or psycopg2.extensions.connection
        cursor = named.get("cursor_factory") or psycopg2.extensions.cursor
        watched = {"connection_factory": _connection(hook, connection), "cursor_factory": _cursor(hook, cursor)}
        return connect(*values, **{**named, **watched})

    psycopg2.connect = connected


def _cursor(hook: _Hook, of: type) -> type:
    """A class of cursors whose statements are seen."""

    class Watched(of):
        def execute(self, query: Any, *values: Any, **named: Any) -> Any:
            done = super().execute(query, *values, **named)
            text = _text(query)
            hook.note(f"SQL {text}")
            for one in hook.statements:
                if one.pattern.search(text):
                    if one.when == boundaries.IN_TRANSACTION:
                        hook.reached(one)
                    else:
                        self.connection.passed.append(one)
            return done

    return Watched


def _connection(hook: _Hook, of: type) -> type:
    """A class of connections whose transactions' ends are seen."""

    class Watched(of):
        def __init__(self, *values: Any, **named: Any) -> None:
            super().__init__(*values, **named)
            self.passed: list[boundaries.Boundary] = []

        def __exit__(self, kind: Any, *error: Any) -> Any:
            ended = super().__exit__(kind, *error)
            passed, self.passed = self.passed, []
            for one in passed:
                if kind is None:
                    hook.reached(one)
            return ended

    return Watched

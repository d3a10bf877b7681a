"""Starts phases at once: a process that has everything loaded forks for each, and a small one stands for it.

Starting Python and loading our modules takes a third of a second, which every phase of every release would wait
for. So one process loads them once. Who starts a phase is `cleanroom-worker` all the same: it hands its arguments,
its environment and its standard streams over, waits, and ends with the phase's exit status.

    client                                     server
    connect                                    fork
    arguments and streams            ->        take them, run
    (SIGTERM) any byte, or its end   ->        SIGTERM
                                     <-        one byte: the exit status

The client imports as little as it can; a test holds it to that.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

# Tells programs that the Buildbot worker starts where the server listens; without it, or the server, they do it alone.
VARIABLE = "PHASE_SERVER"
SOCKET = "phases.sock"
_HELLO_TIMEOUT = 10.0
_BLOCK = 1 << 16
_BROKEN = 3
TURN = 5.0


class Answering(Protocol):
    """What answers for this process's health."""

    socket: socket.socket

    def fileno(self) -> int:
        """For select(2)."""

    def handle_request(self) -> None:
        """Answer one who asks."""


def ask(arguments: Sequence[str]) -> int | None:
    """Have the server run a command with these arguments, in place of this process; gives its exit status.

    None when there is no server. A SIGTERM to this process, or its end, becomes one to the phase.
    """
    place = os.environ.get(VARIABLE)
    if not place:
        return None
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(place)
    except OSError:
        return None
    with server:
        signal.signal(signal.SIGTERM, lambda *_: server.send(b"!", socket.MSG_NOSIGNAL))
        here = os.open(".", os.O_PATH)
        socket.send_fds(server, [b"!"], [here, 0, 1, 2])
        server.sendall(json.dumps([arguments, dict(os.environ)]).encode() + b"\n")
        status = server.recv(1)
    return status[0] if status else _BROKEN


def serve(place: Path, run: Callable[[list[str]], int], health: Answering, turned: Callable[[], None]) -> None:
    """Run a command for each client, with its arguments, in a process of its own, until this one is ended.

    In between it answers for its own health: a thread that did that would be lost, and whatever it held, in each fork.
    `turned` is told at least every TURN seconds that this goes on.
    """
    place.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.umask(0o177)
        listener.bind(str(place))
        os.umask(before)
        listener.listen()
        # The kernel reaps; and what is loaded stays shared with all that are forked.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        gc.freeze()
        while True:
            turned()
            ready, _, _ = select.select([listener.fileno(), health.fileno()], [], [], TURN)
            if health.fileno() in ready:
                health.handle_request()
            if listener.fileno() not in ready:
                continue
            client, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                health.socket.close()
                os._exit(_attend(client, run))
            client.close()


def _attend(client: socket.socket, run: Callable[[list[str]], int]) -> int:
    """In a process of its own: become what the client asked for."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = _BROKEN
    try:
        client.settimeout(_HELLO_TIMEOUT)
        arguments = _take_over(client)
        client.settimeout(None)
        _end_with(client)
        status = run(arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else _BROKEN
    except BaseException:
        traceback.print_exc()
    # Perhaps nobody waits any more.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
        client.send(bytes([status]), socket.MSG_NOSIGNAL)
    return status


def _take_over(client: socket.socket) -> list[str]:
    """Make the client's streams, environment and directory ours; gives its arguments."""
    _, (here, *streams), _, _ = socket.recv_fds(client, 1, 4)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.fchdir(here)
    os.close(here)
    hello = b""
    while not hello.endswith(b"\n"):
        more = client.recv(_BLOCK)
        if not more:
            raise ValueError("the client broke off")
        hello += more
    arguments, environment = json.loads(hello)
    os.environ.clear()
    os.environ.update(environment)
    return [str(word) for word in arguments]


def _end_with(client: socket.socket) -> None:
    """Have the kernel send SIGTERM when the client says something or ends. Source: fcntl(2), F_SETSIG.

    Raises ValueError when it did so already.
    """
    fcntl.fcntl(client, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(client, fcntl.F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(client, fcntl.F_SETFL, fcntl.fcntl(client, fcntl.F_GETFL) | os.O_ASYNC)
    with contextlib.suppress(BlockingIOError):
        client.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        raise ValueError("the client broke off")

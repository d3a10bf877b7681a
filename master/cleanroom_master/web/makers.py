"""Pages are made by further processes, so that many readers have all processors of the machine.

The process that holds the connections hands what is asked for to the first of them that has nothing to do, and sends
what it made. It makes itself what only it has (events, what goes on without end), and everything while none of them
is there. They are forked from it before it serves, have all its code loaded, and share it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import pickle
import signal
import socket
import struct
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import uvloop
from anyio import to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cleanroom_base import parent
from cleanroom_master.web.live import News

# What an answer may take, in seconds: more than the database gives a statement.
_PATIENCE = 90.0
# So long is waited, in seconds, for what they do before anybody asks; without a database it takes a moment more.
_PREPARING = 10.0
# What is sent piece by piece, or has no end, or changes something, is not handed over.
_METHODS = ("GET", "HEAD")
_BEGINS = ("/static/", "/changes", "/metrics")
_ENDS = ("/live", "/download", "/log")
_HANDED = ("http_version", "method", "scheme", "path", "raw_path", "query_string", "headers", "client", "server")
_LENGTH = struct.Struct("!I")

_LOG = logging.getLogger("uvicorn.error")

_Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


class MakerLost(Exception):
    """A process that makes pages has ended, or does not answer."""


@dataclass(eq=False)
class _Maker:
    """One of the processes: it makes one answer at a time."""

    process: int
    connection: socket.socket
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    writer: asyncio.StreamWriter | None = None
    answer: asyncio.Future[_Answer | None] | None = None
    reading: asyncio.Task[None] | None = None


@dataclass(eq=False)
class Makers:
    """The processes, seen from the one that serves. `lost`: what to do when one of them ends by itself."""

    makers: Sequence[_Maker]
    lost: Callable[[], None] = field(default=lambda: None)

    @classmethod
    def fork(
        cls, count: int, application: ASGIApp, news: News, *further: socket.socket, first: Sequence[str] = ()
    ) -> Makers:
        """Fork the processes, to run an application that hears its news from here; they do not keep `further` open.

        Each answers the addresses in `first` for nobody before it takes anything, so that no reader waits for what is
        done at the first use: connections, imports, prepared statements. To be called before there are threads.
        """
        # What is loaded stays shared.
        gc.collect()
        gc.freeze()
        made: list[_Maker] = []
        for _ in range(count):
            ours, theirs = socket.socketpair()
            process = os.fork()
            if process == 0:
                for one in (ours, *further, *(other.connection for other in made)):
                    one.close()
                _be_maker(theirs, application, news, first)
            theirs.close()
            made.append(_Maker(process, ours))
        return cls(made)

    async def begin(self) -> None:
        """Be ready to hand over, with those that are; called in the event loop."""
        self._free: asyncio.Queue[_Maker] = asyncio.LifoQueue()
        self._ending = False
        for maker in self.makers:
            reader, maker.writer = await asyncio.open_unix_connection(sock=maker.connection)
            maker.reading = asyncio.create_task(self._read(maker, reader))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PREPARING):
                for maker in self.makers:
                    await maker.ready.wait()

    async def end(self) -> None:
        """End the processes."""
        self._ending = True
        for maker in self.makers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(maker.process, signal.SIGTERM)
            await asyncio.to_thread(os.waitpid, maker.process, 0)

    async def make(self, scope: Scope, number: int) -> _Answer | None:
        """An answer, made by the first process that has nothing to do; None: it is sent piece by piece.

        Raises MakerLost, and TimeoutError when all of them stay at work.
        """
        async with asyncio.timeout(_PATIENCE):
            maker = await self._free.get()
        assert maker.writer is not None
        maker.answer = asyncio.get_running_loop().create_future()
        _send(maker.writer, (number, {name: scope[name] for name in _HANDED if name in scope}))
        try:
            async with asyncio.timeout(_PATIENCE):
                answer = await maker.answer
        except (TimeoutError, asyncio.CancelledError):
            # Nobody waits for what it makes, and it is not known what it would say next.
            os.kill(maker.process, signal.SIGKILL)
            raise
        self._free.put_nowait(maker)
        return answer

    async def _read(self, maker: _Maker, reader: asyncio.StreamReader) -> None:
        """Give answers to who waits for them, until the process ends."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            # The first thing that it says is that it can begin.
            await _receive(reader)
            self._free.put_nowait(maker)
            maker.ready.set()
            while True:
                answer = await _receive(reader)
                if maker.answer is not None and not maker.answer.done():
                    maker.answer.set_result(answer)
        if maker.answer is not None and not maker.answer.done():
            maker.answer.set_exception(MakerLost())
        maker.ready.set()
        if not self._ending:
            self.lost()


class Handed:
    """Answers with what a maker made; what nobody else can make comes from the application itself."""

    def __init__(self, app: ASGIApp, makers: Makers, news: News) -> None:
        self._app = app
        self._makers = makers
        self._news = news

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        answer = None
        if scope["type"] == "http" and _can_be_handed(scope["method"], scope["path"]):
            # Then it is made here.
            with contextlib.suppress(MakerLost, TimeoutError):
                answer = await self._makers.make(scope, self._news.number())
        if answer is None:
            await self._app(scope, receive, send)
            return
        status, headers, body = answer
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _can_be_handed(method: str, path: str) -> bool:
    return method in _METHODS and not path.startswith(_BEGINS) and not path.endswith(_ENDS)


class _PieceByPiece(Exception):
    """An answer is sent in more than one piece."""


def _be_maker(connection: socket.socket, application: ASGIApp, news: News, first: Sequence[str]) -> None:
    """In a process of its own: make what is asked for, until nobody asks any more."""
    parent.end_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # It is meant for the process that serves, which ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # The other process ends, and so does this one.
        with (
            contextlib.suppress(asyncio.IncompleteReadError, ConnectionError),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(_answer_all(connection, application, news, first))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


async def _answer_all(connection: socket.socket, application: ASGIApp, news: News, first: Sequence[str]) -> None:
    # A thread for the handler: this process makes one answer at a time.
    to_thread.current_default_thread_limiter().total_tokens = 1
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    for path in first:
        answer = await _answer(application, _asked_by_nobody(path))
        if answer is None or answer[0] >= HTTPStatus.INTERNAL_SERVER_ERROR:
            # The database is away; readers are told so.
            break
    _send(writer, None)
    while True:
        number, handed = await _receive(reader)
        news.catch_up(number)
        _send(writer, await _answer(application, handed))


def _asked_by_nobody(path: str) -> dict[str, Any]:
    here = ("localhost", 0)
    return {
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": here,
        "server": here,
    }


async def _answer(application: ASGIApp, handed: dict[str, Any]) -> _Answer | None:
    """The whole answer to a request; None: it is sent piece by piece."""
    found: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def keep(message: Message) -> None:
        if message.get("more_body"):
            raise _PieceByPiece
        found.append(message)

    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "root_path": "", "state": {}, **handed}
    try:
        await application(scope, receive, keep)
    except _PieceByPiece:
        return None
    except Exception:
        _LOG.exception("a page could not be made: %s", handed["path"])
    if not found:
        return None
    start, body = found[0], found[-1]
    return start["status"], [(bytes(name), bytes(value)) for name, value in start["headers"]], body.get("body", b"")


def _send(writer: asyncio.StreamWriter, what: object) -> None:
    content = pickle.dumps(what, pickle.HIGHEST_PROTOCOL)
    writer.write(_LENGTH.pack(len(content)) + content)


async def _receive(reader: asyncio.StreamReader) -> Any:
    """What the other process sent. It runs the same code, and nobody else can write there."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return pickle.loads(await reader.readexactly(length))  # noqa: S301

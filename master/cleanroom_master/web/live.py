"""News for open pages: one connection to the database listens for all of them.

A page says with which number of the news its rows were read: it is told of what came later. Whoever was told of nothing
asks again anyway when the database or this process was away, because then anything may have changed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from anyio import to_thread
from fastapi.responses import Response, StreamingResponse

from cleanroom_base.errors import InfrastructureError
from cleanroom_db import listen
from cleanroom_db import releases as record_of
from cleanroom_db.connection import Database
from cleanroom_db.listen import Listener

# A page is told at most so often, in seconds, and that nothing is new after so many.
_PAUSE = 0.4
_BEAT = 25.0
_WAIT = 60.0
# Of so many releases it is remembered when they last changed; of others it is taken to be when the oldest of these did.
_REMEMBERED = 10_000
# What belongs to no product, as it is told.
_SHARED = frozenset({"host", "service"})


def stream(events: AsyncIterator[str]) -> Response:
    """An answer of server-sent events, which no proxy on the way keeps back."""
    return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


@dataclass(eq=False)
class _Reader:
    """An open page. `release` None: it wants to know of everything.

    `part` is the record as far as its reader may read it (None: all of it); then `releases` are those that changed, of
    which it is not known yet whether he may.
    """

    release: int | None
    part: Database | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    anything: bool = False
    releases: set[int] = field(default_factory=set)

    async def concerned(self) -> bool:
        """Whether what changed is to be told, once something did."""
        self.changed.clear()
        anything, self.anything = self.anything, False
        changed, self.releases = self.releases, set()
        if self.part is None or anything:
            return True
        try:
            return await to_thread.run_sync(record_of.there, self.part, changed)
        except InfrastructureError:
            # The page that he has is not up to date anyway.
            return True


class News:
    """What changed, for the pages of one process. All but the listening thread runs in the event loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._readers: set[_Reader] = set()
        # Numbers go on from one process to the next.
        self._number = self._floor = int(time.time() * 1000)
        self._releases: OrderedDict[int, int] = OrderedDict()
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None

    def number(self, release: int | None = None) -> int:
        """The number of the latest news (of one release)."""
        return self._number if release is None else self._releases.get(release, self._floor)

    def catch_up(self, number: int) -> None:
        """Take over what another process, which hears the news for this one, says of them."""
        self._number = number

    @property
    def readers(self) -> int:
        """How many pages are open."""
        return len(self._readers)

    def start(self) -> None:
        """Begin to listen; called in the event loop."""
        loop = asyncio.get_running_loop()
        listener = self._listener = Listener(self._url, listen.CHANNELS)

        def hear() -> None:
            while self._listener is listener:
                found = listener.messages(_WAIT)
                if found and self._listener is listener:
                    loop.call_soon_threadsafe(self.tell, found)
            listener.close()

        self._thread = threading.Thread(target=hear, name="news", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End listening."""
        listener, self._listener = self._listener, None
        if listener is not None and self._thread is not None:
            listener.interrupt()
            self._thread.join(timeout=5)

    def tell(self, found: dict[str, set[str]]) -> None:
        """Wake the pages that messages are about; a channel without a text means that it may be anything."""
        self._number += 1
        anything = any(not texts for texts in found.values())
        changed = {int(text) for text in found.get(listen.CHANGE, ()) if text.isdecimal()}
        if anything:
            self._floor = self._number
            self._releases.clear()
        for release in changed:
            self._releases[release] = self._number
            self._releases.move_to_end(release)
        while len(self._releases) > _REMEMBERED:
            _, self._floor = self._releases.popitem(last=False)
        # Of what else is told, whoever may read some products learns what concerns all: hosts, services, generations.
        shared = anything or listen.GENERATION in found or bool(found.get(listen.CHANGE, set()) & _SHARED)
        for reader in self._readers:
            if reader.release is not None:
                if anything or reader.release in changed:
                    reader.anything = True
                    reader.changed.set()
            elif reader.part is None or shared:
                reader.anything = True
                reader.changed.set()
            elif changed:
                reader.releases |= changed
                reader.changed.set()

    async def follow(self, release: int | None, seen: int, part: Database | None = None) -> AsyncIterator[str]:
        """Server-sent events for a page that was made with the news `seen`; `part` is what its reader may read of all.

        The release has to be one that he may read.
        """
        reader = _Reader(release, part)
        # What has a number from the future was made by a process whose clock was wrong.
        if self.number(release) > seen or seen > self._number:
            reader.anything = True
            reader.changed.set()
        self._readers.add(reader)
        try:
            yield "retry: 1000\n\n"
            while True:
                try:
                    async with asyncio.timeout(_BEAT):
                        await reader.changed.wait()
                except TimeoutError:
                    yield ": nothing new\n\n"
                    continue
                if not await reader.concerned():
                    continue
                yield f"event: change\nid: {self._number}\ndata: {self._number}\n\n"
                await asyncio.sleep(_PAUSE)
        finally:
            self._readers.discard(reader)

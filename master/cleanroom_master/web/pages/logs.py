"""What did this step say? Live while it runs, complete afterwards; every attempt's step has an address of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import FileResponse, Response, StreamingResponse

from cleanroom_base.errors import InputError
from cleanroom_db import steps
from cleanroom_db.steps import Step
from cleanroom_master import log_lines
from cleanroom_master.log_lines import BLOCK, Found, Line
from cleanroom_master.logs import Index, LogStore, log_name, safe
from cleanroom_master.web.live import stream
from cleanroom_master.web.site import OfSite, Record
from cleanroom_master.web.templating import Render
from cleanroom_master.web.terminal import rendered

router = APIRouter(include_in_schema=False)

# Lines of a page, and the bytes that they may have.
LINES = 500
_ROOM = 256 << 10
# How often a growing log is looked at, and how often a silent reader is told that all is well, in seconds.
_LOOK = 0.25
_BEAT = 15.0
_PIECE = 64 << 10
# Lines that are listed as found, and the bytes of each.
_LISTED = 20
_EXCERPT = 300

Number = Annotated[int, Query(ge=1, lt=2**40)]


@dataclass(frozen=True)
class _Log:
    """A log, sealed or growing."""

    store: LogStore
    step: Step

    @property
    def growing(self) -> Path | None:
        """The file that grows; None where the step has ended."""
        step = self.step
        path = self.store.growing(log_name(step.attempt, step.phase, step.replay, step.name))
        return path if step.log_sha256 is None and path.exists() else None

    def index(self) -> Index | None:
        """Its index, if it has one."""
        return self.store.index(self.step.log_sha256) if self.step.log_sha256 else None

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """Its text, in pieces."""
        if self.step.log_sha256 is not None:
            yield from self.store.chunks(self.step.log_sha256, offset)
        elif (path := self.growing) is not None:
            with path.open("rb") as file:
                yield from iter(lambda: file.read(BLOCK), b"")

    def blocks(self, index: Index | None, line: int = 1) -> Iterator[log_lines.Block]:
        """Its lines, from some line at or before one on."""
        offset, first = index.before(line) if index is not None else (0, 1)
        return log_lines.blocks(self.chunks(offset), first)

    def count(self, index: Index | None) -> int:
        """How many lines it has (so far)."""
        if index is not None:
            return index.lines
        last = b"\n"
        total = 0
        for chunk in self.chunks():
            total += chunk.count(b"\n")
            last = chunk[-1:] or last
        return total + (last != b"\n")


@router.get("/log/{step_id}")
def log(
    step_id: int, site: OfSite, record: Record, render: Render, line: Number | None = None,
    find: Annotated[str, Query(max_length=200)] = "",
) -> Response:  # fmt: skip
    """The lines around one of a log (the first, or while it grows the last), what was found in it, its errors."""
    step = _kept(steps.find(record, step_id))
    opened = _Log(site.logs, step)
    index = opened.index()
    total = opened.count(index)
    grows = opened.growing is not None
    wanted = min(line or (total if grows else 1), max(total, 1))
    first = (wanted - 1) // LINES * LINES + 1
    shown = log_lines.page(opened.blocks(index, first), first, LINES, room=_ROOM)
    if shown and shown[-1].number < wanted:
        # Long lines: what was asked for is not on the page that has an even number of lines.
        first = wanted
        shown = log_lines.page(opened.blocks(index, first), first, LINES, room=_ROOM)
    return render(
        "log.html",
        step=step,
        beside=steps.beside(record, step),
        failing=steps.failing(record, step),
        lines="".join(map(_line, shown)),
        first=first,
        last=shown[-1].number if shown else 0,
        total=total,
        size=LINES,
        grows=grows,
        find=find,
        found=_rendered(log_lines.search(opened.blocks(index), find)) if find else None,
        errors=None if grows else _rendered(_errors(opened, index)),
    )


def _kept(step: Step) -> Step:
    """The same step, if its log is kept. Raises InputError."""
    if step.log_removed_at is not None:
        raise InputError(
            f"the log of {step.name} in {step.phase} of {step.product} {step.ref} is kept no more",
            hint=f"it went on {step.log_removed_at:%Y-%m-%d}, as the setting retention.logs_days says",
        )
    return step


def _errors(opened: _Log, index: Index | None) -> Found:
    """The lines that tell of errors; of a long log they are known already."""
    if index is None:
        return log_lines.errors(opened.blocks(None))
    lines = tuple(Line(number, text.encode(), cut=False) for number, text in index.errors)
    return Found(lines, index.error_count)


def _line(line: Line) -> str:
    """A line as HTML, as the script makes one that comes later; there are hundreds of these on a page."""
    number = line.number
    cut = "<em> (goes on: see the download)</em>" if line.cut else ""
    return f'<span class="line" id="L{number}"><a href="#L{number}">{number}</a> {rendered(line.text)}{cut}\n</span>'


def _rendered(found: Found) -> dict[str, object]:
    return {
        "count": found.count,
        "lines": [(one.number, rendered(one.text[:_EXCERPT])) for one in found.lines[:_LISTED]],
    }


@router.get("/log/{step_id}/download")
def download(step_id: int, request: Request, site: OfSite, record: Record) -> Response:
    """All of a log as a file."""
    step = _kept(steps.find(record, step_id))
    name = f"{step.product}_{step.ref}_{step.target}_{step.phase}_{step.name}.log"
    headers = {"Content-Disposition": f'attachment; filename="{safe(name)}"'}
    kind = "text/plain; charset=utf-8"
    if step.log_sha256 is not None and "gzip" in request.headers.get("accept-encoding", ""):
        headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding", "Cache-Control": "no-cache"}
        return FileResponse(site.logs.path(step.log_sha256), media_type=kind, headers=headers)
    return StreamingResponse(_Log(site.logs, step).chunks(), media_type=kind, headers=headers)


@router.get("/log/{step_id}/live")
def live(
    step_id: int, site: OfSite, record: Record, after: Annotated[int, Query(ge=0, lt=2**40)] = 0,
    last_event_id: Annotated[int | None, Header(ge=0, lt=2**40)] = None,
) -> Response:  # fmt: skip
    """What comes to a growing log after some lines, as server-sent events: `lines`, and `end`."""
    path = _Log(site.logs, steps.find(record, step_id)).growing
    return stream(_follow(path, after if last_event_id is None else last_event_id))


async def _follow(path: Path | None, after: int) -> AsyncIterator[str]:
    """The lines that a file gets after some, until it is there no more."""
    if path is not None:
        # Once it is open it can be read to its end, though the log is sealed in the meantime.
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            number, rest, silent = await to_thread.run_sync(_skip, file, after), b"", 0.0
            while True:
                over = not path.exists()
                while piece := file.read(_PIECE):
                    *whole, rest = (rest + piece).split(b"\n")
                    rest = rest[: 2 * log_lines.LINE]
                    if whole:
                        yield _lines(number, whole)
                        number, silent = number + len(whole), 0.0
                    await asyncio.sleep(0)
                if over:
                    break
                await asyncio.sleep(_LOOK)
                silent += _LOOK
                if silent >= _BEAT:
                    yield ": nothing new\n\n"
                    silent = 0.0
            if rest:
                yield _lines(number, [rest])
    yield "event: end\ndata:\n\n"


def _skip(file: IO[bytes], lines: int) -> int:
    """Go to where in a file the line after some begins, or to its last line; returns the number of that line."""
    number = 1
    while number <= lines and (line := file.readline(BLOCK)):
        if not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            break
        number += 1
    return number


def _lines(first: int, lines: list[bytes]) -> str:
    """An event with some lines, and the number of the last as its id: with that a reader goes on who was away."""
    data = [[number, rendered(text[: log_lines.LINE])] for number, text in enumerate(lines, first)]
    return f"event: lines\nid: {first + len(lines) - 1}\ndata: {json.dumps(data)}\n\n"

"""100,000 test cases on their way: a guest's result file or log, the worker's events, the master's rows."""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from figures import Row, summary
from installation import fresh, say

from cleanroom_base.run import Completed
from cleanroom_base.settings import load
from cleanroom_db import products, ref_events, releases
from cleanroom_db.cluster import open_database
from cleanroom_db.listen import CHANNELS, Listener
from cleanroom_db.ref_events import NewRef, RefDetails
from cleanroom_db.releases import Planned, PlannedBuild
from cleanroom_db.roles import Role
from cleanroom_db.states import TagKind
from cleanroom_master.dispatch import Dispatch
from cleanroom_recipes import events, loader
from cleanroom_recipes.events import TestCase
from cleanroom_recipes.model import Outcome
from cleanroom_workers.results.log import LogReport
from cleanroom_workers.results.step import PhaseResults

CASES = 100_000
RUNS = 5
_BOUND_SECONDS = 5.0
_BOUND_MIB = 200
_CHUNK = 64 * 1024
_STEP = "test-1"
_TIMEOUT = 600.0


def measure(runs: int | None = None) -> dict[str, Any]:
    """Each kind as often as asked for, in processes of their own, so that their memory is theirs."""
    rows = []
    for kind in _KINDS:
        found = []
        for number in range(runs or RUNS):
            with fresh("ingest") as settings:
                say(f"ingest: {kind}, run {number + 1}")
                found.append(_once(settings.state, kind))
        rows.append(
            {
                "what": kind,
                **summary([one["seconds"] for one in found]),
                "bound": _BOUND_SECONDS,
                "master_mib": max(one["master_mib"] for one in found),
                "bound_mib": _BOUND_MIB,
                "worker_mib": max(one["worker_mib"] for one in found),
                "rows": min(one["rows"] for one in found),
            }
        )
    return {"ingest": rows}


def tables(measured: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """What of it people want to see."""
    return [(f"{CASES} test cases from the guest's bytes to rows; in seconds, memory at most", measured["ingest"])]


def _once(state: Path, kind: str) -> dict[str, Any]:
    pipe = str(state / "events")
    os.mkfifo(pipe)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as processes:
        master = processes.submit(_master, pipe)
        worker = processes.submit(_worker, pipe, kind)
        begun, worker_mib = worker.result(_TIMEOUT)
        ended, master_mib, rows = master.result(_TIMEOUT)
    return {"seconds": ended - begun, "master_mib": master_mib, "worker_mib": worker_mib, "rows": rows}


def _worker(pipe: str, kind: str) -> tuple[float, int]:
    """What a worker does when a step has ended, or while it prints."""
    source = _KINDS[kind]()
    with Path(pipe).open("wb") as sink:
        begun = time.monotonic()
        for event in events.in_events(datetime.now(UTC), _STEP, source()):
            sink.write(events.encode(event))
    return begun, _memory()


def _master(pipe: str) -> tuple[float, int, int]:
    """What the master does with a worker's words, as they come."""
    with _phase() as (dispatch, phase), Path(pipe).open("rb", buffering=0) as source:
        rest = b""
        while chunk := source.read(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            told = [events.decode(line) for line in lines if line]
            if told:
                phase.record(told)
        ended = time.monotonic()
        memory = _memory()
        with dispatch.database.transaction() as cursor:
            return ended, memory, int(cursor.value("SELECT count(*) FROM cleanroom.test_case"))


@contextmanager
def _phase() -> Iterator[tuple[Dispatch, Any]]:
    """A phase that has begun, of a release recorded for it."""
    settings = load()
    database = open_database(settings, Role.OWNER)
    recipe = loader.load(b'builder = "deb"\n', source="bench", name="bench", url="https://example.org/bench.git")
    products.add(database, "bench", recipe.url)
    new = NewRef("v1", RefDetails(commit="1" * 40, tag_kind=TagKind.ANNOTATED))
    ref_events.record_many(database, "bench", [new], recorded_by="bench")
    build = PlannedBuild("debian-12/deb", ("build",))
    planned = Planned((build,), loader.to_json(recipe), loader.digest(recipe), "testing")
    releases.claim_next(database, lambda *_: planned)
    with closing(Listener(database.url, CHANNELS)) as listener:
        dispatch = Dispatch(settings, database, listener)
        job = dispatch.lease(dispatch.turn()[0].id, "bench/1", "worker", "")
        assert job is not None
        phase = dispatch.begin_phase(job, "build")
        phase.record([events.StepStarted(datetime.now(UTC), _STEP, 0)])
        yield dispatch, phase
    database.close()


def _memory() -> int:
    """The most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class _Sender:
    """A guest that sends one result file."""

    def __init__(self, content: bytes) -> None:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            member = tarfile.TarInfo("build/tree/junit.xml")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        self._stream = stream.getvalue()

    def run(self, command: Any, *, timeout: float, output: Any = None, output_limit: int | None = None) -> Completed:
        """Send it."""
        output(self._stream)
        return Completed(tuple(command), 0, b"", b"", 0.0)


def _junit() -> Callable[[], Any]:
    cases = "".join(
        f'<testcase classname="org.example.module{n % 1000}.SuiteTest" name="test case number {n}" time="0.00{n % 10}">'
        + ('<failure message="expected 1 and got 2">at line 12\n</failure>' if n % 100 == 0 else "")
        + "</testcase>\n"
        for n in range(CASES)
    )
    guest = _Sender(f'<testsuite name="bench">{cases}</testsuite>'.encode())
    own = TestCase(_STEP, Outcome.PASSED)
    return lambda: PhaseResults("/cleanroom").of(guest, (), LogReport(), own).cases


def _log() -> Callable[[], Any]:
    lines = [f"{'FAIL' if n % 100 == 0 else 'PASS'}: module-{n % 1000}/test case number {n}" for n in range(CASES)]

    def read() -> Any:
        log = LogReport()
        for line in lines:
            log.take(line)
        return PhaseResults("/cleanroom").of(None, (), log, None).cases

    return read


_KINDS: dict[str, Callable[[], Callable[[], Any]]] = {"JUnit XML": _junit, "a log": _log}

"""The web status on a large record: how long pages take with many readers, how large they are, what open ones cost."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import side_by_side
from figures import Row, summary
from installation import fresh, say

from cleanroom_base import run
from cleanroom_base.errors import InfrastructureError, TimedOut
from cleanroom_base.settings import Settings
from cleanroom_db.cluster import open_database
from cleanroom_db.connection import Database
from cleanroom_db.roles import Role
from cleanroom_master import supervisor
from cleanroom_master.logs import LogStore
from cleanroom_master.places import Places

PRODUCTS, RELEASES, CASES = 1_000, 100_000, 100
READERS, ASKED = 20, 10
OPEN_PAGES = 500
_IDLE = 20.0
_PATIENCE = 60.0
_BOUND_MS, _BOUND_KB = 150, 100
_LOG_LINES = 2_000_000

_ROWS = Path(__file__).with_name("many_releases.sql")


def measure(runs: int | None = None) -> dict[str, Any]:
    """Fill a database of its own, serve it, and read it as many people do."""
    with fresh("web") as settings:
        database = open_database(settings, Role.OWNER)
        say(f"web: making {RELEASES} releases with {RELEASES * CASES} test results; this takes minutes")
        _fill(database, PRODUCTS, RELEASES, CASES)
        log = _long_log(settings, database)
        with _served(settings) as process:
            port = settings.whole("web.port")
            pages = [_page(port, name, addresses, runs or ASKED) for name, addresses in _addresses(log).items()]
            live = _open_pages(port, process, database)
        database.close()
    found = {"pages": pages, "live": [live], "readers": READERS, "releases": RELEASES, "cases": RELEASES * CASES}
    return {**found, "beside": _beside()}


def _beside() -> list[Row]:
    """Our pages and Buildbot's, of the same builds."""
    with fresh("beside") as settings:
        database = open_database(settings, Role.OWNER)
        say("web: beside Buildbot's pages")
        _fill(database, side_by_side.PRODUCTS, side_by_side.RELEASES, side_by_side.CASES)
        rows = side_by_side.measure(settings, database, lambda: _served(settings))
        database.close()
    return rows


def tables(measured: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """What of it people want to see."""
    title = (
        f"pages, {measured['readers']} readers at once without a pause, {measured['releases']} releases, "
        f"{measured['cases']} results"
    )
    beside = f"in a browser, the same {side_by_side.RELEASES} builds"
    return [
        (f"{title}; milliseconds and kB", measured["pages"]),
        ("open live pages, idle", measured["live"]),
        (beside, measured["beside"]),
    ]


def _addresses(log: int) -> dict[str, Callable[[int], str]]:
    """The pages, each with what is asked for the time that it is asked for it."""

    def product(n: int) -> str:
        return f"product-{1 + n * 37 % PRODUCTS}"

    def release(n: int) -> str:
        number = RELEASES - 100 - n * 97 % (RELEASES - 1000)
        return f"/release/product-{1 + number % PRODUCTS}/v{number}"

    return {
        "releases": lambda _: "/",
        "releases of a product": lambda n: f"/?product={product(n)}",
        "releases that failed": lambda _: "/?state=failed",
        "a release": release,
        "products": lambda n: f"/products?after={product(n)}",
        "a product": lambda n: f"/product/{product(n)}",
        "tests of a product": lambda n: f"/tests/{product(n)}",
        "a test": lambda n: f"/tests/{product(n)}?name={quote(f'suite-{n % 10}/case {n % 10 + 10}')}",
        "queue": lambda _: "/queue",
        "repository": lambda _: "/repository",
        "hosts and targets": lambda _: "/hosts",
        "trends": lambda _: "/trends",
        "trends of a product": lambda n: f"/trends?product={product(n)}",
        "a log of 200 MB": lambda n: f"/log/{log}?line={1 + n * 9_973 % _LOG_LINES}",
    }


def _fill(database: Database, products: int, releases: int, cases: int) -> None:
    with database.transaction() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute("SET LOCAL maintenance_work_mem = '512MB'")
        for statement in _ROWS.read_text().split(";\n"):
            if statement.strip():
                cursor.execute(statement, products=products, releases=releases, cases=cases)


def _long_log(settings: Settings, database: Database) -> int:
    """A step with a log of 200 MB."""
    store = LogStore(Places(settings).logs)
    log = store.open("bench")
    for number in range(0, _LOG_LINES, 1000):
        log.write("".join(f"line {number + at} of a log: {'x' * 80}\n" for at in range(1000)))
    sealed = log.seal()
    with database.transaction() as cursor:
        return int(
            cursor.value(
                "UPDATE cleanroom.step SET log_sha256 = %(sha256)s, log_size = %(size)s WHERE id = 1 RETURNING id",
                sha256=sealed.sha256,
                size=sealed.size,
            )
        )


@contextlib.contextmanager
def _served(settings: Settings) -> Iterator[int]:
    """The web status as its own process; gives its number."""
    log = Places(settings).service_log("web")
    process = run.start([sys.executable, "-m", "cleanroom_master.web"], log=log, end_with_parent=True)
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", settings.whole("web.port")), timeout=1).close()
                break
            if process.poll() is not None:
                raise InfrastructureError(f"the web status ended:\n{supervisor.tail(log)}")
            if time.monotonic() > deadline:
                raise TimedOut(f"the web status does not answer:\n{supervisor.tail(log)}")
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        run.wait(process, supervisor.GRACE)
        run.kill_group(process)


def _page(port: int, name: str, address: Callable[[int], str], asked: int) -> Row:
    """How long a page takes when all readers ask for it, each again as soon as it has the one before."""
    taken: list[float] = []
    sizes: list[int] = []
    failed: list[str] = []

    def read(reader: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
        for turn in range(asked):
            wanted = address(reader * asked + turn)
            begun = time.monotonic()
            connection.request("GET", wanted)
            answer = connection.getresponse()
            body = answer.read()
            taken.append(time.monotonic() - begun)
            sizes.append(len(body))
            if answer.status != 200:
                failed.append(f"{wanted}: {answer.status}")
        connection.close()

    readers = [threading.Thread(target=read, args=(number,)) for number in range(READERS)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    if failed or not taken:
        raise InfrastructureError(f"{name}: {len(failed)} answers were no page, such as {failed[:1]}")
    milliseconds = summary([seconds * 1000 for seconds in taken], digits=0)
    return {"page": name, **milliseconds, "bound": _BOUND_MS, "kB": round(max(sizes) / 1000, 1), "bound kB": _BOUND_KB}


def _open_pages(port: int, process: int, database: Database) -> Row:
    """What the service takes with many open pages on which nothing happens; and how soon all know of a change."""
    before = _memory(process)
    with contextlib.ExitStack() as held:
        streams = []
        for _ in range(OPEN_PAGES):
            stream = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE))
            stream.sendall(b"GET /changes?seen=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            streams.append(stream)
        for stream in streams:
            _read_until(stream, b"event: change")
        begun, used = time.monotonic(), _processor(process)
        time.sleep(_IDLE)
        share = (_processor(process) - used) / (time.monotonic() - begun)
        memory = _memory(process)
        begun = time.monotonic()
        with database.transaction() as cursor:
            cursor.execute("UPDATE cleanroom.release SET why = 'another' WHERE id = 1")
        first = None
        for stream in streams:
            _read_until(stream, b"event: change")
            first = first or time.monotonic() - begun
        last = time.monotonic() - begun
    return {
        "pages": OPEN_PAGES,
        "memory_mib": round(memory),
        "memory_before_mib": round(before),
        "bound_mib": 300,
        "processor_percent": round(share * 100, 1),
        "bound_percent": 5,
        "first_knows_s": round(first or 0.0, 3),
        "all_know_s": round(last, 3),
    }


def _read_until(stream: socket.socket, words: bytes) -> None:
    found = b""
    while words not in found:
        piece = stream.recv(4096)
        if not piece:
            raise InfrastructureError("an open page was closed")
        found += piece


def _memory(process: int) -> float:
    """What a process and those that it started have in memory, in MiB; what they share counts once. Source: proc(5)."""
    kilobytes = 0
    for one in _family(process):
        parts = Path(f"/proc/{one}/smaps_rollup").read_text().split("Pss:", 1)[1]
        kilobytes += int(parts.split()[0])
    return kilobytes / 1024


def _processor(process: int) -> float:
    """The processor seconds of a process and those that it started, so far. Source: proc(5)."""
    ticks = 0
    for one in _family(process):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _family(process: int) -> list[int]:
    """A process and those that it started, and theirs."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(one for child in children for one in _family(int(child)))]

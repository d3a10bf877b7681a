"""From the wish for a clean guest until its first command has run: ready, started now, booted, and a peer's."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import peer
from figures import Row, percentile, ratio, summary
from installation import IMAGE, say, with_image

from cleanroom_base import run
from cleanroom_base.errors import InfrastructureError, TimedOut
from cleanroom_base.settings import Settings
from cleanroom_images.store import Image, Store
from cleanroom_workers.guest import Guest
from cleanroom_workers.host import Host
from cleanroom_workers.plan import Limits

_RUNS = 20
_COLD_RUNS = 3
# What others are compared with.
_PEER = ("emulated", "cold boot")
_TIMEOUT = 120.0
_READY_TIMEOUT = 300.0
_LOOK = 0.05
# Between two guests of the pool: it prepares the next one meanwhile, as it does while a phase runs.
_WORK = 1.0
_TOGETHER = 8
_MEMORY = 1024


@dataclass(frozen=True)
class Span:
    """Seconds until a guest ran or, where nobody tells, answered; until its first command had run; to its end."""

    running: float
    first: float
    end: float
    method: str


def measure(runs: int | None = None) -> dict[str, Any]:
    """Reset guests of every isolation that works here, one after the other, in each way in which that is done.

    Raises InfrastructureError where none works.
    """
    host = Host.open(with_image())
    try:
        probes = host.probe()
        works = [probe.isolation for probe in probes if probe.works]
        if not works:
            raise InfrastructureError("no isolation works on this host", hint="see: cleanroom doctor")
        measured = [row for isolation in works for row in _ways(host, isolation, runs or _RUNS)]
        machines = [isolation for isolation in works if isolation != "container"]
        memory: list[Row] = []
        for isolation in machines:
            say(f"memory: {_TOGETHER} guests, {isolation}")
            memory.append({"isolation": isolation, **_memory(host, isolation)})
        # The look is the same for all; where a reset is quickest, it can be seen best.
        quickest = "container" if "container" in works else works[0]
        cleanliness = [_cleanliness(host, quickest, runs or _RUNS)]
        say(f"guests: {peer.PROGRAM}")
        peers, failed = peer.seconds(min(runs or _COLD_RUNS, _COLD_RUNS))
    finally:
        host.stop()
    return {
        "missing": [
            *({"isolation": probe.isolation, "why": probe.reason} for probe in probes if not probe.works),
            *({"isolation": peer.PROGRAM, "why": why} for why in failed),
        ],
        "resets": _rows(measured),
        "peer": [{"peer": peer.PROGRAM, **summary(peers)}] if peers else [],
        "memory": memory,
        "cleanliness": cleanliness,
    }


def tables(measured: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """What of it people want to see."""
    return [
        ("reset until the first command has run, in seconds", measured["resets"]),
        ("the same of a peer: a virtual machine, emulated, until it takes commands, in seconds", measured["peer"]),
        ("what the check of the image adds to a reset that is not from the pool, in seconds", measured["cleanliness"]),
        (f"memory of ready virtual machines of {_MEMORY} MiB, in MiB", measured["memory"]),
        ("what does not work on this host", measured["missing"]),
    ]


def _ways(host: Host, isolation: str, runs: int) -> Iterator[tuple[str, list[Span]]]:
    """An isolation's resets: booted, started in the quickest way there is, and from the pool."""
    if isolation != "container":
        say(f"guests: {isolation}, booting")
        booting = Host(replace(host.settings, values={**host.settings.values, "worker.snapshots": "no"}))
        yield isolation, [_reset(booting, isolation) for _ in range(min(runs, _COLD_RUNS))]
        booting.close()
    say(f"guests: {isolation}")
    # What is made once for all guests is not part of any.
    _reset(host, isolation)
    yield isolation, [_reset(host, isolation) for _ in range(runs)]
    say(f"guests: {isolation}, from the pool")
    with _pool(host.settings):
        yield isolation, [_ready_reset(host, isolation) for _ in range(runs)]


def _reset(host: Host, isolation: str) -> Span:
    runs: list[float] = []

    def listen(line: str) -> None:
        if " runs, " in line:
            runs.append(time.monotonic())

    begun = time.monotonic()
    with host.reset(IMAGE, isolation=isolation, limits=_limits(host), observer=listen) as guest:
        answers = time.monotonic()
        guest.succeed(["true"], timeout=_TIMEOUT)
        ran = time.monotonic()
    running = runs[-1] if runs else answers
    return Span(running - begun, ran - begun, time.monotonic() - ran, guest.method)


@contextmanager
def _pool(settings: Settings) -> Iterator[None]:
    """The process that keeps guests ready, for those kinds that are asked for from now on."""
    for note in (settings.state / "pool").glob("*.json"):
        note.unlink()
    program = Path(sys.executable).with_name("cleanroom-worker")
    process = run.start([program, "pool"], log=settings.state / "pool.log", end_with_parent=True)
    try:
        yield
    finally:
        process.terminate()
        run.wait(process, _TIMEOUT)
        run.kill_group(process)


def _ready_reset(host: Host, isolation: str) -> Span:
    deadline = time.monotonic() + _READY_TIMEOUT
    while not any(record.isolation == isolation for record in host.ready()):
        if time.monotonic() > deadline:
            raise TimedOut(f"the pool made no {isolation} guest ready")
        if not list((host.settings.state / "pool").glob("*.json")):
            # Nothing is kept ready before it was asked for.
            _reset(host, isolation)
        time.sleep(_LOOK)
    time.sleep(_WORK)
    return _reset(host, isolation)


class _Trusting(Store):
    """Images as a host would take them that does not look whether they are what was sealed."""

    def check(self, image: Image) -> None:
        """Believe it."""


def _cleanliness(host: Host, isolation: str, runs: int) -> Row:
    """Resets with and without the look whether the image is what was sealed, in turns."""
    say(f"cleanliness: {isolation}")
    trusting = Host(host.settings)
    trusting.catalogue.store = _Trusting(host.settings.state)
    checked, unchecked = [], []
    for _ in range(runs):
        checked.append(_reset(host, isolation).first)
        unchecked.append(_reset(trusting, isolation).first)
    trusting.close()
    with_check, without = percentile(checked, 0.5), percentile(unchecked, 0.5)
    return {
        "isolation": isolation,
        "n": runs,
        "checked_p50": round(with_check, 3),
        "unchecked_p50": round(without, 3),
        "adds": round(with_check - without, 3),
    }


def _limits(host: Host) -> Limits:
    return replace(host.limits, memory=_MEMORY)


def _memory(host: Host, isolation: str) -> Row:
    """What ready guests that run side by side hold: each for itself, and all with their template."""
    with ExitStack() as stack:
        guests = [
            stack.enter_context(host.reset(IMAGE, isolation=isolation, limits=_limits(host))) for _ in range(_TOGETHER)
        ]
        parts = [_held(guest) for guest in guests]
        name = (host.settings.state / "guests" / guests[0].name / "snapshot").read_text(encoding="ascii")
        template = (host.settings.state / "snapshots" / name / "memory").stat().st_blocks * 512 / (1 << 20)
    private = [part["Pss_Anon"] for part in parts]
    return {
        "guests": len(guests),
        "private_p50": round(percentile(private, 0.5), 1),
        "private_most": round(max(private), 1),
        "template": round(template, 1),
        "together": round(sum(private) + sum(part["Pss_File"] for part in parts) + template, 1),
    }


def _held(guest: Guest) -> dict[str, float]:
    """The parts of the memory of a guest's emulator in MiB. Source: proc(5), /proc/PID/smaps_rollup.

    Anonymous is what the guest changed and the emulator made; what is mapped of the template is shared memory.
    """
    process = next(process for process in _processes() if f"guest={guest.name},".encode() in _command(process))
    lines = (process / "smaps_rollup").read_text(encoding="ascii")
    return {name: int(size) / 1024 for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", lines, re.MULTILINE)}


def _processes() -> Iterator[Path]:
    return Path("/proc").glob("[0-9]*")


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def _rows(measured: list[tuple[str, list[Span]]]) -> list[Row]:
    """One row an isolation and method. The peer is a cold boot of the same image as an emulated machine."""
    boots = [span.first for isolation, spans in measured for span in spans if (isolation, span.method) == _PEER]
    cold = float(str(summary(boots)["p50"])) if boots else None
    rows: list[Row] = []
    for isolation, spans in measured:
        first = summary([span.first for span in spans])
        running = [span.running for span in spans]
        rows.append(
            {
                "isolation": isolation,
                "method": spans[0].method,
                **first,
                "running_p50": round(percentile(running, 0.5), 3),
                "running_p95": round(percentile(running, 0.95), 3),
                "end_p50": summary([span.end for span in spans])["p50"],
                "cold_boot": cold,
                "times_faster": None if cold is None else ratio(float(str(first["p50"])), cold),
            }
        )
    return rows

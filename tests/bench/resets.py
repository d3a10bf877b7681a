"""From the wish for a clean guest until its first command has run, per isolation, against a cold boot."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from figures import Row, percentile, ratio, summary
from installation import IMAGE, say, with_image

from cleanroom_workers.guest import Guest
from cleanroom_workers.host import Host
from cleanroom_workers.plan import Limits

_RUNS = {"container": 20, "kvm": 20, "emulated": 20}
_COLD_RUNS = 3
# What others are compared with.
_PEER = ("emulated", "cold boot")
_TIMEOUT = 120.0
_TOGETHER = 8
_MEMORY = 1024


@dataclass(frozen=True)
class Span:
    """Seconds until a virtual machine ran, until the first command had run, and until the guest was gone again."""

    running: float | None
    first: float
    end: float
    method: str


def measure(runs: int | None = None) -> dict[str, Any]:
    """Reset guests of every isolation that works here, one after the other; virtual machines booted and restored."""
    host = Host.open(with_image())
    booting = Host(replace(host.settings, values={**host.settings.values, "worker.snapshots": "no"}))
    try:
        probes = host.probe()
        measured = []
        memory: list[Row] = []
        for isolation in [probe.isolation for probe in probes if probe.works]:
            if isolation != "container":
                say(f"resets: {isolation}, booting")
                measured.append((isolation, [_reset(booting, isolation) for _ in range(min(runs or 99, _COLD_RUNS))]))
            say(f"resets: {isolation}")
            # What is made once for all guests is not part of any.
            _reset(host, isolation)
            count = min(runs or _RUNS[isolation], _RUNS[isolation])
            measured.append((isolation, [_reset(host, isolation) for _ in range(count)]))
            if isolation != "container":
                say(f"memory: {_TOGETHER} guests, {isolation}")
                memory.append({"isolation": isolation, **_memory(host, isolation)})
    finally:
        booting.close()
        host.stop()
    return {
        "missing": [{"isolation": probe.isolation, "why": probe.reason} for probe in probes if not probe.works],
        "resets": _rows(measured),
        "memory": memory,
    }


def tables(measured: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """What of it people want to see."""
    return [
        ("reset until the first command has run, in seconds", measured["resets"]),
        (f"memory of ready virtual machines of {_MEMORY} MiB, in MiB", measured["memory"]),
        ("isolations that do not work on this host", measured["missing"]),
    ]


def _reset(host: Host, isolation: str) -> Span:
    runs: list[float] = []

    def listen(line: str) -> None:
        if " runs, " in line:
            runs.append(time.monotonic())

    begun = time.monotonic()
    with host.reset(IMAGE, isolation=isolation, limits=_limits(host), observer=listen) as guest:
        guest.succeed(["true"], timeout=_TIMEOUT)
        ran = time.monotonic()
    return Span(runs[-1] - begun if runs else None, ran - begun, time.monotonic() - ran, guest.method)


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
        running = [span.running for span in spans if span.running is not None]
        rows.append(
            {
                "isolation": isolation,
                "method": spans[0].method,
                **first,
                "running_p50": round(percentile(running, 0.5), 3) if running else None,
                "running_p95": round(percentile(running, 0.95), 3) if running else None,
                "end_p50": summary([span.end for span in spans])["p50"],
                "cold_boot": cold,
                "times_faster": None if cold is None else ratio(float(str(first["p50"])), cold),
            }
        )
    return rows

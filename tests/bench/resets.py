"""From the wish for a clean guest until its first command has run, per isolation, against a cold boot."""

from __future__ import annotations

import time
from typing import Any

from figures import Row, ratio, summary
from installation import IMAGE, say, with_image

from cleanroom_workers.host import Host

_RUNS = {"container": 20, "kvm": 10, "emulated": 3}
_TIMEOUT = 120.0


def measure(runs: int | None = None) -> dict[str, Any]:
    """Reset guests of every isolation that works here, one after the other."""
    host = Host.open(with_image())
    try:
        probes = host.probe()
        measured = []
        for isolation in [probe.isolation for probe in probes if probe.works]:
            say(f"resets: {isolation}")
            count = min(runs or _RUNS[isolation], _RUNS[isolation])
            spans = [_reset(host, isolation) for _ in range(count)]
            measured.append({"isolation": isolation, "method": spans[0][2], "spans": [span[:2] for span in spans]})
    finally:
        host.stop()
    return {
        "missing": [{"isolation": probe.isolation, "why": probe.reason} for probe in probes if not probe.works],
        "resets": _rows(measured),
    }


def tables(measured: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """What of it people want to see."""
    return [
        ("reset until the first command has run, in seconds", measured["resets"]),
        ("isolations that do not work on this host", measured["missing"]),
    ]


def _reset(host: Host, isolation: str) -> tuple[float, float, str]:
    """Seconds until the first command has run, and until the guest is gone again."""
    begun = time.monotonic()
    with host.reset(IMAGE, isolation=isolation) as guest:
        guest.succeed(["true"], timeout=_TIMEOUT)
        ran = time.monotonic()
        method = guest.method
    return ran - begun, time.monotonic() - ran, method


def _rows(measured: list[dict[str, Any]]) -> list[Row]:
    """One row an isolation. The peer is a cold boot of the same image as an emulated machine."""
    boots = [span[0] for one in measured if one["isolation"] == "emulated" for span in one["spans"]]
    cold = summary(boots)["p50"] if boots else None
    rows: list[Row] = []
    for one in measured:
        first = summary([span[0] for span in one["spans"]])
        rows.append(
            {
                "isolation": one["isolation"],
                "method": one["method"],
                **first,
                "end_p50": summary([span[1] for span in one["spans"]])["p50"],
                "cold_boot": cold,
                "times_faster": None if cold is None else ratio(float(str(first["p50"])), float(str(cold))),
            }
        )
    return rows

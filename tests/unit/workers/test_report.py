"""What a host says of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from cleanroom_workers.records import GuestRecord
from cleanroom_workers.report import NAME, Report

GUEST = GuestRecord(
    *("name", "debian-12", "d" * 64, "container", "overlay", "mirror", "10.0.0.2", "02:00:00:00:00:01", "tap0"),
    *("2030-01-31T12:00:00Z", "running", None, 0.02),
)


class Machine:
    """A host with guests in some states."""

    def __init__(self, *states: str) -> None:
        self.states = states

    def recorded(self) -> list[GuestRecord]:
        return [replace(GUEST, state=state) for state in self.states]

    def known_isolations(self) -> tuple[str, ...]:
        return ("container",)


def test_a_host_says_what_became_of_its_places(tmp_path: Path) -> None:
    host = Machine("ready", "running", "starting", "ending", "ready", "crashed")
    report = Report(host, tmp_path / "info", 8)
    assert list(report.tend()) == []
    [file] = (tmp_path / "info").iterdir()
    assert file.name == NAME
    said = json.loads(file.read_text())
    assert (said["places"], said["ready"], said["running"], said["isolations"]) == (8, 2, 2, ["container"])
    assert said["processors"] > 0
    assert said["memory_mib"] > 0
    host.states = ()
    list(report.tend())
    assert json.loads(file.read_text())["running"] == 0

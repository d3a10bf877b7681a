"""The named boundaries of the torture: that they are where the product's work is, and that a process dies there."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import boundaries
import pytest
import striking
from surroundings import variables

from cleanroom_base.settings import load
from cleanroom_master import supervisor

ROOT = Path(__file__).parents[3]
HOOK = ROOT / "tests/torture/hook"
# Does what the publisher does with a generation.
RENAMES = """
import os, sys
from pathlib import Path
generations = Path(sys.argv[1], "generations")
generations.mkdir()
(generations / "7.partial").mkdir()
os.rename(generations / "7.partial", generations / "7")
os.mkdir(generations / "8")
print("alive")
"""


def statements() -> str:
    return "\n".join(file.read_text() for file in sorted((ROOT / "db/cleanroom_db/sql").glob("*.sql")))


def test_places_have_names_of_their_own() -> None:
    places = [one.place for one in boundaries.BOUNDARIES]
    assert sorted(set(places)) == sorted(places)
    assert boundaries.named(places[0]) is boundaries.BOUNDARIES[0]


@pytest.mark.parametrize(
    "boundary", [one for one in boundaries.BOUNDARIES if not one.event], ids=lambda boundary: boundary.place
)
def test_the_product_has_the_statement_of_each_boundary(boundary: boundaries.Boundary) -> None:
    blocks = re.split(r"^-- name: ", statements(), flags=re.MULTILINE)
    assert [block for block in blocks if boundary.pattern.search(block)]


def test_services_are_recognised_by_their_command_lines(tmp_path: Path) -> None:
    settings = load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path)})
    known = {one.name: striking.service_of(list(one.command)) for one in supervisor.services(settings)}
    watched = {one.service for one in boundaries.BOUNDARIES}
    assert watched <= known.keys()
    assert all(known[service] == service for service in watched)
    # What the master becomes, once it has looked after its tables.
    assert striking.service_of(["twistd", "--nodaemon", f"--python={tmp_path}/buildbot/buildbot.tac"]) == "master"
    assert striking.service_of(["cleanroom-worker", "run-phase", "request.json"]) is None


def started(tmp_path: Path, place: str, action: str = "kill") -> subprocess.Popen[str]:
    """A process that takes itself for the publisher, with one boundary armed."""
    control, state = tmp_path / "control", tmp_path / "state"
    control.mkdir()
    state.mkdir()
    (control / "armed").write_text(json.dumps({"place": place, "action": action, "seconds": 60}))
    return subprocess.Popen(
        [sys.executable, "-c", RENAMES, state, "-m", "cleanroom_master.publisher"],
        env={**variables(), "TORTURE_CONTROL": str(control), "PYTHONPATH": str(HOOK)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("place", "left"),
    [("a generation is written, not named", ["7.partial"]), ("a generation is named", ["7"])],
)
def test_a_process_dies_before_or_after_what_it_does(tmp_path: Path, place: str, left: list[str]) -> None:
    process = started(tmp_path, f"publisher: {place}")
    assert process.communicate(timeout=60) == ("", None)
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "state/generations").iterdir()] == left
    assert [path.name for path in (tmp_path / "control").iterdir()] == ["struck"]


def test_a_process_stands_still_until_the_driver_is_done(tmp_path: Path) -> None:
    process = started(tmp_path, "publisher: a generation is written, not named", "hold")
    deadline = time.monotonic() + 60
    while not (tmp_path / "control/struck").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert process.poll() is None
    (tmp_path / "control/struck").unlink()
    assert process.communicate(timeout=60) == ("alive\n", None)
    assert process.returncode == 0


def test_nobody_dies_where_another_boundary_is_armed(tmp_path: Path) -> None:
    process = started(tmp_path, "publisher: switched, not noted")
    assert process.communicate(timeout=60) == ("alive\n", None)

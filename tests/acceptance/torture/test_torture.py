"""The torture in two short forms; `make torture` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from surroundings import kept_between_runs, variables

pytestmark = pytest.mark.timeout(900)
PROGRAM = Path(__file__).parents[2] / "torture"


# Two releases without any disturbance; besides one for each kind, which comes by chance, or three while every process
# is killed once.
@pytest.mark.parametrize(
    ("releases", "words"), [(10, ()), (5, ("--only=kill all",))], ids=["each-kind", "each-process"]
)
def test_nothing_is_lost_doubled_or_left(tmp_path: Path, releases: int, words: tuple[str, ...]) -> None:
    state, report = kept_between_runs() / "torture", tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, PROGRAM, f"--releases={releases}", *words, f"--state={state}", f"--json={report}"],
        env=variables(),
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

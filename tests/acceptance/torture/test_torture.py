"""The torture in its short form: one disturbance of each kind, by chance. `make torture` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from surroundings import kept_between_runs, variables

pytestmark = pytest.mark.timeout(900)
PROGRAM = Path(__file__).parents[2] / "torture"
# Two without any disturbance, and one for each kind.
RELEASES = 10


def test_nothing_is_lost_doubled_or_left(tmp_path: Path) -> None:
    state, report = kept_between_runs() / "torture", tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, PROGRAM, f"--releases={RELEASES}", f"--state={state}", f"--json={report}"],
        env=variables(),
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

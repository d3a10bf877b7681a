"""Every process is killed once while releases are on their way, and an auditor looks at what is left.

That is the shortest torture; `test_torture.py` has one disturbance of each kind, `make torture` all of them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from surroundings import kept_between_runs, variables

pytestmark = pytest.mark.timeout(900)
PROGRAM = Path(__file__).parents[2] / "torture"
# Two without any disturbance, and three that meet it.
RELEASES = 5


def test_nothing_is_lost_when_every_process_is_killed(tmp_path: Path) -> None:
    state, report = kept_between_runs() / "killing", tmp_path / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, PROGRAM, f"--releases={RELEASES}", "--only=kill all"),
            *(f"--state={state}", f"--json={report}"),
        ],
        env=variables(),
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

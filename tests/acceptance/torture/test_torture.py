"""The torture in two short forms; `make torture` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from surroundings import kept_between_runs, variables

pytestmark = pytest.mark.timeout(900)
PROGRAM = Path(__file__).parents[2] / "torture"


# Two releases without any disturbance; besides one for each kind, or three while every process is killed once. The
# order is the same each time, so that what is new here is what was changed; the long form goes by chance.
@pytest.mark.parametrize(
    ("seed", "releases", "words"), [(22, 10, ()), (21, 5, ("--only=kill all",))], ids=["each-kind", "each-process"]
)
def test_nothing_is_lost_doubled_or_left(tmp_path: Path, seed: int, releases: int, words: tuple[str, ...]) -> None:
    state, report = kept_between_runs() / "torture", tmp_path / "report.json"
    done = subprocess.run(
        [
            sys.executable,
            PROGRAM,
            f"--seed={seed}",
            f"--releases={releases}",
            *words,
            f"--state={state}",
            f"--json={report}",
        ],
        env=variables(),
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

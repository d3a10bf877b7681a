"""The torture's boundaries in statements: a process that works on the record as ours do dies in its transactions."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from database_server import Server, add_product, record_tags
from surroundings import variables

from cleanroom_db.connection import Database
from cleanroom_db.roles import Role

HOOK = Path(__file__).parents[1] / "torture/hook"
SUPPORT = Path(__file__).parents[1] / "support"
# One statement with many rows, and one without.
RECORDS = """
import sys
from database_server import record_tags
from cleanroom_db.connection import Database
record_tags(Database(sys.argv[1]), "v2")
print("alive")
"""
CLAIMS = """
import sys
from database_server import plan
from cleanroom_db import releases
from cleanroom_db.connection import Database
assert releases.claim_next(Database(sys.argv[1]), plan)
print("alive")
"""


def worked(program: str, service: str, url: str, place: str, tmp_path: Path) -> tuple[int, str]:
    """The exit status and output of a process that takes itself for a service, with one boundary armed."""
    (tmp_path / "armed").write_text(json.dumps({"place": place, "action": "kill", "seconds": 0}))
    done = subprocess.run(
        [sys.executable, "-c", program, url, "-m", service],
        env={**variables(), "TORTURE_CONTROL": str(tmp_path), "PYTHONPATH": f"{HOOK}:{SUPPORT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("service", "program", "place", "count"),
    [
        ("refs", RECORDS, "refs: a tag is in the record, not committed", 1),
        ("refs", RECORDS, "refs: a tag is recorded", 2),
        ("buildbot", CLAIMS, "master: claimed, not committed", 0),
        ("buildbot", CLAIMS, "master: claimed, before the builds are scheduled", 1),
    ],
)
def test_a_process_dies_before_or_after_a_commit(
    owner: Database, server: Server, name: str, tmp_path: Path, service: str, program: str, place: str, count: int
) -> None:
    add_product(owner)
    record_tags(owner, "v1")
    url = server.url(Role.OWNER, name)
    assert worked(program, f"cleanroom_master.{service}", url, place, tmp_path) == (-signal.SIGKILL, "")
    assert [path.name for path in tmp_path.iterdir()] == ["struck"]
    table = "ref_event" if program == RECORDS else "release"
    with owner.transaction() as cursor:
        assert cursor.value(f"SELECT count(*) FROM cleanroom.{table}") == count


def test_nobody_dies_in_a_transaction_at_another_boundary(
    owner: Database, server: Server, name: str, tmp_path: Path
) -> None:
    add_product(owner)
    place = "refs: a tag is recorded"
    assert worked(CLAIMS_NOTHING, "cleanroom_master.refs", server.url(Role.OWNER, name), place, tmp_path) == (
        0,
        "alive\n",
    )


CLAIMS_NOTHING = CLAIMS.replace("assert ", "assert not ")

"""What a killed master left, taken over by the next one; and what a full disk left, by the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from database_server import POLICY, add_product, begin, claim

from cleanroom_db import attempts, phases
from cleanroom_db.connection import Database
from cleanroom_master.leftovers import take_over_logs
from cleanroom_master.logs import LogStore, log_name


def test_logs_of_a_killed_master_come_to_their_steps(owner: Database, master: Database, tmp_path: Path) -> None:
    add_product(owner)
    held = begin(owner, claim(owner, "v1"), "master@host/1")
    phase = phases.start(owner, held, 0, "build")
    step = phases.start_step(owner, held, phase, 0, "command-1")
    silent = phases.start_step(owner, held, phase, 1, "command-2")
    again = phases.start(owner, held, 0, "build", replay=2)
    replayed = phases.start_step(owner, held, again, 0, "command-1")
    logs = LogStore(tmp_path)
    growing = tmp_path / "growing"
    growing.mkdir()
    for name, text in (
        (f"{held.attempt_id}-build-command-1", "one\ntwo\n"),
        (f"{held.attempt_id}-build-command-2", ""),
        (log_name(held.attempt_id, "build", 2, "command-1"), "five\n"),
        (f"{held.attempt_id}-build-nobody", "three\n"),
        ("999999-build-command-1", "four\n"),
    ):
        (growing / f"{name}.log").write_text(text)
    attempts.abandon(master, "master@host/", "the master was restarted", POLICY)

    take_over_logs(master, logs)
    assert logs.left() == {}
    with owner.transaction() as cursor:
        rows = {row["id"]: row for row in cursor.rows("SELECT * FROM cleanroom.step")}
    assert logs.read(rows[step]["log_sha256"]) == b"one\ntwo\n"
    assert rows[step]["log_size"] == 8
    assert rows[step]["outcome"] == "infrastructure"
    assert logs.read(rows[replayed]["log_sha256"]) == b"five\n"
    assert rows[silent]["log_sha256"] is None
    take_over_logs(master, logs)


def test_a_log_that_could_not_be_sealed_comes_to_its_step_later(
    owner: Database, master: Database, tmp_path: Path
) -> None:
    add_product(owner)
    held = begin(owner, claim(owner, "v1"))
    phase = phases.start(owner, held, 0, "build")
    step = phases.start_step(owner, held, phase, 0, "command-1")
    logs = LogStore(tmp_path)
    log = logs.open(log_name(held.attempt_id, "build", 0, "command-1"))
    log.write("one\n")
    take_over_logs(master, logs)
    assert log.path.exists(), "somebody writes it"

    # As on a full disk, nothing can be made where it belongs.
    in_the_way = tmp_path / hashlib.sha256(b"one\n").hexdigest()[:2]
    in_the_way.touch()
    with pytest.raises(OSError):
        log.seal()
    in_the_way.unlink()
    take_over_logs(master, logs)
    assert not log.path.exists()
    with owner.transaction() as cursor:
        digest = cursor.value("SELECT log_sha256 FROM cleanroom.step WHERE id = %(step)s", step=step)
    assert logs.read(str(digest)) == b"one\n"

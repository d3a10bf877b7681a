"""What a killed master or a full disk left half done: the logs of steps that nobody ends any more."""

from __future__ import annotations

from cleanroom_db import phases
from cleanroom_db.connection import Database
from cleanroom_master.logs import LogStore, log_name, safe


def take_over_logs(database: Database, logs: LogStore) -> None:
    """Give each log that was left to its step; one that belongs to no step is removed."""
    left = logs.left()
    if not left:
        return
    attempts = {int(number) for name in left if (number := name.partition("-")[0]).isdecimal()}
    steps = {
        safe(log_name(step.attempt_id, step.phase, step.replay, step.step)): step.id
        for step in phases.without_log(database, attempts)
    }
    for name, path in left.items():
        if name in steps and path.stat().st_size:
            sealed = logs.seal_left(path)
            phases.attach_log(database, steps[name], sealed.sha256, sealed.size)
        else:
            path.unlink()

"""GnuPG's agent, which gpg starts by itself and which lives on when whoever needed it is killed.

Its sockets are in its home only as long as there is no /run/user/UID, which comes when somebody signs in, or runs dnf:
an agent from before is reached by nobody then, not even to be told to end. So it is found by its home instead.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cleanroom_base.settings import Settings
from cleanroom_workers.processes import end as end_process
from cleanroom_workers.processes import started

_END_TIMEOUT = 5.0


def site_home(settings: Settings) -> Path:
    """The home of the site's signing keys, by the short link through which its publisher reaches the agent."""
    return settings.runtime / "publisher" / "gnupg"


def end(home: Path) -> None:
    """End the agents of a home, by whatever link gpg was told of it, and wait until they have ended."""
    for process in _of(home):
        since = started(process)
        if since is not None:
            end_process(process, since=since, timeout=_END_TIMEOUT)


def _of(home: Path) -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            program, *words = map(os.fsdecode, (entry / "cmdline").read_bytes().split(b"\0"))
            if Path(program).name == "gpg-agent" and "--homedir" in words[:-1]:
                told = Path(words[words.index("--homedir") + 1])
                if told == home or told.resolve() == home.resolve():
                    yield int(entry.name)

"""GnuPG's agent, which gpg starts by itself: it lives on when whoever needed it is killed, and is ended by its home."""

from __future__ import annotations

import re
import time
from pathlib import Path

from cleanroom_base.run import run
from cleanroom_base.settings import Settings

_TIMEOUT = 60.0
# It ends at once, unless somebody is just being served.
_END_TIMEOUT = 5.0
_PAUSE = 0.01


def site_home(settings: Settings) -> Path:
    """The home of the site's signing keys, by the short link through which its publisher reaches the agent."""
    return settings.runtime / "publisher" / "gnupg"


def end(home: Path) -> None:
    """End the agent of a home, if one runs, and wait a moment until it has. Raises CommandTimedOut."""
    asked: list[str | Path] = ["gpg-connect-agent", "--homedir", home, "--no-autostart", "GETINFO pid", "/bye"]
    told = run(asked, timeout=_TIMEOUT, check=False).text
    run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], timeout=_TIMEOUT, check=False)
    deadline = time.monotonic() + _END_TIMEOUT
    for process in re.findall(r"^D (\d+)$", told, re.MULTILINE):
        while Path("/proc", process).exists() and time.monotonic() < deadline:
            time.sleep(_PAUSE)

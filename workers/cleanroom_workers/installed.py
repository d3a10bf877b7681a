"""Which packages a guest has, in exact versions: what may have made the difference between two runs.

What the guest prints is hostile: what has not the form of a package is left out, and of too much nothing is taken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from cleanroom_base.errors import CleanroomError
from cleanroom_base.run import Completed
from cleanroom_recipes.events import INSTALLED_LIMIT

_TIMEOUT = 30.0
_MOST = 5000
_DPKG = ("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package} ${Version}\\n")
_RPM = ("rpm", "--query", "--all", "--queryformat=installed %{NAME} %{VERSION}-%{RELEASE}\\n")
_LINE = re.compile(r"installed ([A-Za-z0-9][A-Za-z0-9+._-]{0,190}) ([A-Za-z0-9.+~^:_()-]{1,200})")


class Asked(Protocol):
    """What is needed of a guest."""

    def run(self, command: Sequence[str], *, timeout: float, output_limit: int | None = None) -> Completed:
        """Run a command, whatever its exit status."""


def packages(guest: Asked, *, rpm: bool) -> dict[str, str]:
    """The versions of all installed packages by name, of rpm packages by `rpm:` and their name.

    Empty where the guest cannot say it, or says too much.
    """
    found = _read(guest, _DPKG, "")
    if rpm:
        found |= _read(guest, _RPM, "rpm:")
    size = sum(len(name) + len(version) for name, version in found.items())
    return found if len(found) <= _MOST and size <= INSTALLED_LIMIT else {}


def _read(guest: Asked, command: Sequence[str], prefix: str) -> dict[str, str]:
    try:
        done = guest.run(command, timeout=_TIMEOUT, output_limit=2 * INSTALLED_LIMIT)
    except CleanroomError:
        return {}
    lines = map(_LINE.fullmatch, done.stdout.decode(errors="replace").splitlines())
    return {f"{prefix}{line[1]}": line[2] for line in lines if line}

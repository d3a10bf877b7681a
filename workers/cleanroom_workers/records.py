"""What is known about a guest outside of it: a small file per guest, written as a whole or not at all.

Files and not libvirt's metadata, because the record must be there before the domain is and after it is gone:
it is how a half-made or half-ended guest is found.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_workers.processes import started

_FILE = "guest.json"


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, such as the one that claims a guest: its number, and when it started (in clock ticks since
    boot), because numbers are used again."""

    process: int
    started: int

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        found = cls.of(os.getpid())
        if found is None:
            raise InfrastructureError("cannot read this process's own start time from /proc")
        return found

    @classmethod
    def of(cls, process: int) -> Owner | None:
        """The process of that number, None when it does not run."""
        since = started(process)
        return None if since is None else cls(process, since)

    def alive(self) -> bool:
        """Whether that very process still runs."""
        return started(self.process) == self.started


@dataclass(frozen=True, slots=True)
class GuestRecord:
    """A guest as others see it.

    `state` is `starting` until it first answered, then `running` (`ready` while it is kept for whoever comes), and
    `ending` while it is taken away; of one that ended by itself `powered off` or `crashed`. A guest without an
    owner stays until someone destroys it. `kind` is the key of those that may have it while it is ready; `first`
    is the process on the host with which it ends, where there is one. `layer` is what lies on its image.
    """

    name: str
    image: str
    digest: str
    isolation: str
    method: str
    network: str
    address: str
    mac: str
    device: str
    started_at: str
    state: str
    owner: Owner | None
    reset_seconds: float | None
    kind: str | None = None
    first: Owner | None = None
    layer: str | None = None


class Records:
    """The records of all guests of an installation."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def home(self, name: str) -> Path:
        """The directory of one guest's files."""
        return self.directory / name

    def names(self) -> list[str]:
        """All guests that left a trace, whole or not."""
        if not self.directory.is_dir():
            return []
        return sorted(path.name for path in self.directory.iterdir() if path.is_dir())

    def write(self, record: GuestRecord) -> None:
        """Write a record, in place of an earlier one."""
        file = self.home(record.name) / _FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
        temporary.replace(file)

    def read(self, name: str) -> GuestRecord | None:
        """The record of a guest, None when there is none that is whole."""
        try:
            content = json.loads((self.home(name) / _FILE).read_text(encoding="utf-8"))
            for field in ("owner", "first"):
                content[field] = None if content.get(field) is None else Owner(**content[field])
            return GuestRecord(**content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def all(self) -> list[GuestRecord]:
        """All whole records."""
        return [record for record in map(self.read, self.names()) if record is not None]

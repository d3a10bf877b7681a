"""Where the control plane keeps its things below the state directory."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import cleanroom_master
from cleanroom_base.settings import Settings


@dataclass(frozen=True)
class Places:
    """The directories and files of the master, the publisher and the supervisor."""

    settings: Settings

    @property
    def run(self) -> Path:
        """Locks and states of running processes."""
        return self.settings.state / "run"

    @property
    def secrets(self) -> Path:
        """Passwords that were made here; readable by the owner alone."""
        return self.settings.state / "secrets"

    @property
    def logs(self) -> Path:
        """Logs of steps, content-addressed."""
        return self.settings.state / "logs"

    def service_log(self, name: str) -> Path:
        """The log of one process."""
        return self.run / f"{name}.log"

    def temporary(self, name: str) -> Path:
        """Where one process makes its temporary files; what it leaves there is removed before it starts again."""
        return self.settings.state / "temporary" / name

    @property
    def artifacts(self) -> Path:
        """Artifacts of builds as the master received and checked them, content-addressed."""
        return self.settings.state / "artifacts"

    @property
    def sources(self) -> Path:
        """Archives of recorded commits on their way to workers."""
        return self.settings.state / "sources"

    @property
    def incoming(self) -> Path:
        """Artifacts on their way from workers, not yet checked."""
        return self.settings.state / "incoming"

    @property
    def published(self) -> Path:
        """The published repository: generations and their pool."""
        return self.settings.state / "repository"

    @property
    def signing(self) -> Path:
        """The publisher's GnuPG home."""
        return self.settings.state / "publisher" / "gnupg"

    @property
    def buildbot(self) -> Path:
        """Buildbot's base directory."""
        return self.settings.state / "buildbot"

    @property
    def master_configuration(self) -> Path:
        """The `master.cfg` that comes with this package."""
        return shipped(cleanroom_master, "basedir") / "master.cfg"


def shipped(package: object, name: str) -> Path:
    """A directory that lives beside its package in a checkout and inside it once installed."""
    inside = Path(str(resources.files(package)))  # type: ignore[arg-type]
    return inside / name if (inside / name).is_dir() else inside.parent / name

"""Runs phases of builds in real guests by the command that a worker calls, and keeps what they told."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from surroundings import variables

from cleanroom_recipes import events, loader, request
from cleanroom_recipes.conditions import Conditions
from cleanroom_recipes.model import Outcome, RefKind, Target
from cleanroom_recipes.names import version_of_tag
from cleanroom_recipes.plan import PhasePlan, plan
from cleanroom_recipes.request import PhaseRequest, Repository

Kind = TypeVar("Kind")

COMMIT = "0123456789" * 4
_COMMAND = "import sys; from cleanroom_workers.entry import main; sys.exit(main())"
# Of a phase, in seconds; the slowest are emulated.
_TIMEOUT = 1800


class Told:
    """What one phase told, and how its command ended."""

    def __init__(self, lines: bytes, exit_status: int) -> None:
        self.events = [events.decode(line) for line in lines.splitlines()]
        self.exit_status = exit_status

    def of(self, kind: type[Kind]) -> list[Kind]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def outcome(self) -> Outcome:
        return self.of(events.PhaseFinished)[0].outcome

    @property
    def why(self) -> str:
        return self.of(events.PhaseFinished)[0].why or ""

    @property
    def steps(self) -> dict[str, Outcome]:
        return {event.step: event.outcome for event in self.of(events.StepFinished)}

    @property
    def log(self) -> str:
        return "".join(event.text for event in self.of(events.Output))

    @property
    def tests(self) -> dict[str, Outcome]:
        return {case.name: case.outcome for event in self.of(events.Tests) for case in event.cases}


class Build:
    """One build of a source tree; each phase's artifacts go where the next one finds them.

    Steps whose names are in `without` are left out, to save their time where they do not matter.
    """

    without: tuple[str, ...] = ("lint",)

    def __init__(
        self, directory: Path, environment: Mapping[str, str], tree: Path, recipe: str, target: str, ref: str
    ) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.kind = RefKind.TAG
        self.ref = ref
        self.previous: Path | None = None
        self.repository: Repository | None = None
        self.conditions = Conditions()
        self.artifacts = directory / "artifacts"
        self._environment = {**variables(), **environment}
        self._recipe = loader.load(recipe.encode(), source="the recipe", name="x", url="file:///x")
        self.target = Target.parse(target)
        self._source = directory / "source.tar"
        with tarfile.open(self._source, "w") as tar:
            tar.add(tree, arcname=".", filter=_as_git_archives)

    @property
    def phases(self) -> dict[str, PhasePlan]:
        return {
            phase.name: replace(phase, steps=tuple(step for step in phase.steps if step.name not in self.without))
            for phase in plan(self._recipe, self.target)
        }

    def request(self, name: str) -> Path:
        """The file with the order to run a phase."""
        phase = self.phases[name]
        output = self.artifacts if phase.makes_artifacts else self.directory / f"output-{name}"
        output.mkdir(exist_ok=True)
        expected = version_of_tag(self.ref, self._recipe.versions) if self.kind is RefKind.TAG else None
        wanted = PhaseRequest(
            product=self._recipe.name,
            ref=self.ref,
            kind=self.kind,
            commit=COMMIT,
            commit_time=datetime(2026, 1, 31, 12, 0, tzinfo=UTC),
            expected_version=expected,
            target=self.target,
            attempt=1,
            phase=phase,
            source=self._source,
            artifacts=self.artifacts,
            previous=self.previous,
            output=output,
            repository=self.repository,
            conditions=self.conditions,
        )
        file = self.directory / f"{name}.json"
        file.write_bytes(request.encode(wanted))
        return file

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start a phase."""
        command = [sys.executable, "-c", _COMMAND, "run-phase", str(self.request(name))]
        return subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE)

    def run(self, name: str) -> Told:
        """Run a phase to its end."""
        with self.start(name) as process:
            lines, _ = process.communicate(timeout=_TIMEOUT)
        return Told(lines, process.returncode)


def write_tree(directory: Path, files: Mapping[str, str]) -> Path:
    """A source tree; a file whose content begins with #! can be run."""
    for name, content in files.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(0o755 if content.startswith("#!") else 0o644)
    return directory


def _as_git_archives(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 1_769_860_800
    return member

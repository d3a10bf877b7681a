"""Packages of several products installed together in a clean guest, and a pair that breaks there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from builds import Told
from surroundings import variables
from tiny_packages import make_deb

from cleanroom_db.conflicts import UnionMember
from cleanroom_master.conflicts import union
from cleanroom_recipes import request
from cleanroom_recipes.model import Outcome, Target
from cleanroom_workers.host import Host

_COMMAND = "import sys; from cleanroom_workers.entry import main; sys.exit(main())"
TOOL = {"/usr/bin/tool": "tool\n"}


@pytest.mark.usefixtures("host")
def test_a_union_is_installed_for_real(tmp_path: Path, host: Host, environment: dict[str, str]) -> None:
    library = make_deb(tmp_path, "liba", files=TOOL)
    program = make_deb(tmp_path, "b", more_control="Depends: liba (>= 1), libc6\n", files={"/usr/bin/b": "b\n"})
    fine = install(tmp_path, environment, library, program)
    assert (fine.outcome, fine.why) == (Outcome.PASSED, "")
    # Each of these is fine alone.
    thief = make_deb(tmp_path, "thief", files=TOOL)
    broken = install(tmp_path, environment, library, program, thief)
    assert broken.outcome is Outcome.FAILED
    assert "trying to overwrite '/usr/bin/tool', which is also in package" in broken.log
    assert not host.guests()


def install(directory: Path, environment: dict[str, str], *files: Path) -> Told:
    """Run the phase of the union of some packages, as a worker does."""
    artifacts, output = directory / f"artifacts-{len(files)}", directory / f"output-{len(files)}"
    for place in (artifacts, output):
        place.mkdir()
    for file in files:
        (artifacts / file.name).write_bytes(file.read_bytes())
    members = tuple(UnionMember(number, file.stem, "", file.name, None) for number, file in enumerate(files))
    wanted = union.Union(Target.parse("debian-12/deb"), members, ())
    order = directory / "request.json"
    whole = union.request(wanted, attempt=1, artifacts=artifacts, output=output)
    # To bring the guest up to date takes longer than all else, and changes nothing here.
    steps = tuple(step for step in whole.phase.steps if step.name != "update")
    order.write_bytes(request.encode(replace(whole, phase=replace(whole.phase, steps=steps))))
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, "run-phase", str(order)],
        env={**variables(), **environment},
        stdout=subprocess.PIPE,
        timeout=300,
        check=False,
    )
    return Told(done.stdout, done.returncode)

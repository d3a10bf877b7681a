"""A second directory is filled by rsync, and a client reads it after each pass."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mirror_reader
from tiny_packages import make_deb, make_rpm, sha256

from cleanroom_master.publish.package import Package
from cleanroom_master.publish.repository import Repository

MIRROR = Path(__file__).parents[3] / "scripts/mirror"
# rsync, and after it a client who notes what he misses.
RSYNC = """#!/bin/sh
PATH=${{PATH#*:}}
rsync "$@" || exit
{python} -c 'import sys; from pathlib import Path; from mirror_reader import missing
print("pass:", *missing(Path(sys.argv[1])))' {mirror} >>{notes}
"""


class Mirror:
    """A repository and its mirror."""

    def __init__(self, repository: Repository, home: Path) -> None:
        self.repository, self.home = repository, home
        self.directory, self.notes = home / "mirror", home / "notes"
        programs = home / "programs"
        programs.mkdir()
        (programs / "rsync").write_text(RSYNC.format(python=sys.executable, mirror=self.directory, notes=self.notes))
        (programs / "rsync").chmod(0o755)
        self.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(mirror_reader.__file__).parent),
        }

    def publish(self, number: int, *files: Path) -> None:
        packages: list[Package] = []
        for file in files:
            added = self.repository.add_to_pool(file, sha256(file))
            packages.append(added.published_in("testing", f"debian-12/{added.format}"))
        self.repository.build(number, packages)
        self.repository.switch(number)

    def fill(self) -> list[str]:
        """Run it; gives what clients missed after each pass."""
        self.notes.unlink(missing_ok=True)
        words = [MIRROR, self.repository.directory / "current", self.directory]
        subprocess.run(words, check=True, env=self.environment, timeout=60)
        return self.notes.read_text().splitlines()


def test_a_client_of_the_mirror_never_misses_anything(repository: Repository, tmp_path: Path) -> None:
    mirror = Mirror(repository, tmp_path)
    deb, rpm = make_deb(tmp_path), make_rpm(tmp_path)
    mirror.publish(1, deb, rpm)
    assert mirror.fill() == ["pass:"] * 4
    assert mirror_reader.packages(mirror.directory) == {deb.name, rpm.name}
    # What changes: one version goes, one comes.
    newer = make_deb(tmp_path, version="2.0")
    mirror.publish(2, newer, rpm)
    assert mirror.fill() == ["pass:"] * 4
    assert mirror_reader.packages(mirror.directory) == {newer.name, rpm.name}


def test_what_is_gone_leaves_the_mirror_at_the_end(repository: Repository, tmp_path: Path) -> None:
    mirror = Mirror(repository, tmp_path)
    mirror.publish(1, make_deb(tmp_path))
    mirror.fill()
    (mirror.directory / "apt/pool/old").mkdir()
    (mirror.directory / "apt/pool/old/old.deb").touch()
    mirror.fill()
    assert not (mirror.directory / "apt/pool/old").exists()
    there = {str(file.relative_to(mirror.directory)) for file in mirror.directory.rglob("*") if file.is_file()}
    root = mirror.repository.directory / "current"
    assert there == {
        str(Path(place, name).relative_to(root))
        for place, _, names in os.walk(root, followlinks=True)
        for name in names
    }

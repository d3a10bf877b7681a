"""A second directory is filled by rsync or as an object store is, and a client reads it after each pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import mirror_reader
import pytest
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

# The same of "aws s3", as far as a directory can stand for a bucket: it follows links, has no empty directories, the
# last pattern that fits decides, and sync leaves out what is there in the same size and was brought later than it was
# changed.
AWS = """#!{python}
import os, shutil, sys
from fnmatch import fnmatchcase
from pathlib import Path
sys.path.append({support!r})
from mirror_reader import missing

service, how, *words = sys.argv[1:]
patterns, options, places = [], set(), []
while words:
    word = words.pop(0)
    if word in ("--exclude", "--include"):
        patterns.append((word == "--include", words.pop(0)))
    elif word == "--cache-control":
        words.pop(0)
    elif word.startswith("--"):
        options.add(word)
    else:
        places.append(word)
source, store = Path(places[0]), Path({mirror!r})
assert service == "s3" and places[1:] == ["s3://example"] and ("--recursive" in options) == (how == "cp")


def files(root):
    found = [Path(place, name) for place, _, names in os.walk(root, followlinks=True) for name in names]
    return {{name for name in (str(one.relative_to(root)) for one in found) if is_meant(name)}}


def is_meant(name):
    return ([fits for fits, pattern in patterns if fnmatchcase(name, pattern)] or [True])[-1]


def is_there(name):
    old, new = store / name, source / name
    if how == "cp" or not old.exists() or old.stat().st_size != new.stat().st_size:
        return False
    return "--size-only" in options or old.stat().st_mtime >= new.stat().st_mtime


for name in sorted(files(source)):
    if not is_there(name):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, store / name)
if "--delete" in options:
    for name in files(store) - files(source):
        (store / name).unlink()
with open({notes!r}, "a") as notes:
    print("pass:", *missing(store), file=notes)
"""


STORE = "s3://example"


class Mirror:
    """A repository and its mirror, which is a directory or, by its address, stands for an object store."""

    def __init__(self, repository: Repository, home: Path, address: str | None = None) -> None:
        self.repository, self.home = repository, home
        self.directory, self.notes = home / "mirror", home / "notes"
        self.address = address or str(self.directory)
        programs = home / "programs"
        programs.mkdir()
        told = {"python": sys.executable, "mirror": str(self.directory), "notes": str(self.notes)}
        for name, text in (("rsync", RSYNC), ("aws", AWS)):
            (programs / name).write_text(text.format(support=str(Path(mirror_reader.__file__).parent), **told))
            (programs / name).chmod(0o755)
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
        words = [MIRROR, self.repository.directory / "current", self.address]
        subprocess.run(words, check=True, env=self.environment, timeout=60)
        return self.notes.read_text().splitlines()


@pytest.mark.parametrize(("address", "passes"), [(None, 4), (STORE, 5)], ids=["rsync", "object-store"])
def test_a_client_of_the_mirror_never_misses_anything(
    repository: Repository, tmp_path: Path, address: str | None, passes: int
) -> None:
    mirror = Mirror(repository, tmp_path, address)
    deb, rpm = make_deb(tmp_path), make_rpm(tmp_path)
    mirror.publish(1, deb, rpm)
    assert mirror.fill() == ["pass:"] * passes
    assert mirror_reader.packages(mirror.directory) == {deb.name, rpm.name}
    # What changes: one version goes, one comes.
    newer = make_deb(tmp_path, version="2.0")
    mirror.publish(2, newer, rpm)
    assert mirror.fill() == ["pass:"] * passes
    assert mirror_reader.packages(mirror.directory) == {newer.name, rpm.name}
    assert _contents(mirror.directory) == _contents(repository.directory / "current")


def test_what_is_gone_leaves_the_mirror_at_the_end(repository: Repository, tmp_path: Path) -> None:
    mirror = Mirror(repository, tmp_path)
    mirror.publish(1, make_deb(tmp_path))
    mirror.fill()
    (mirror.directory / "apt/pool/old").mkdir()
    (mirror.directory / "apt/pool/old/old.deb").touch()
    mirror.fill()
    assert not (mirror.directory / "apt/pool/old").exists()
    assert _contents(mirror.directory) == _contents(mirror.repository.directory / "current")


def test_an_object_store_gets_what_was_signed_before_the_last_copy_ended(
    repository: Repository, tmp_path: Path
) -> None:
    store = Mirror(repository, tmp_path, STORE)
    store.publish(1, make_deb(tmp_path))
    store.publish(2, make_deb(tmp_path, version="2.0"))
    root = repository.directory / "generations/1"
    store.fill()
    # Signed texts of one size, and what is in the store came later than either was written.
    assert (root / "apt/dists/testing/InRelease").stat().st_size == (
        store.directory / "apt/dists/testing/InRelease"
    ).stat().st_size
    repository.switch(1)
    assert store.fill() == ["pass:"] * 5
    assert _contents(store.directory) == _contents(root)


def _contents(root: Path) -> dict[str, bytes]:
    """The files below a directory but the packages below a state, of which an object store has none."""
    found = [Path(place, name) for place, _, names in os.walk(root, followlinks=True) for name in names]
    places = {str(file.relative_to(root)): file for file in found}
    return {place: file.read_bytes() for place, file in places.items() if not re.search("/states/.*/pool/", place)}

"""Killed at any point, or out of disk: consumers see the old generation or the new one, and the next try works."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from surroundings import variables
from tiny_packages import make_deb, make_rpm, sha256

from cleanroom_master.publish.repository import Repository
from cleanroom_master.publish.signing import Signer

# Publishes the files in FILES as the next generation, and kills itself at the Nth of a kind of system call. Python
# tells a hook of each call just before it is made.
PUBLISH = """
import json, os, signal, sys
from collections import Counter
from pathlib import Path
from cleanroom_master.publish.repository import Repository
from cleanroom_master.publish.signing import Signer
from tiny_packages import sha256

home, runtime, directory, files, event, number = sys.argv[1:]
seen = Counter()

def hook(name, arguments):
    if name == "open":
        name = "write" if arguments[2] & os.O_WRONLY else "flush" if arguments[2] & os.O_DIRECTORY else "read"
    seen[name] += 1
    if name == event and seen[name] == int(number):
        os.kill(os.getpid(), signal.SIGKILL)

signer = Signer(Path(home), Path(runtime), user_id="Test repository")
repository = Repository(Path(directory), signer, origin="Test", url="http://repository.example")
sys.addaudithook(hook)
repository.discard_unfinished()
packages = []
for file in sorted(Path(files).glob("*.deb")) + sorted(Path(files).glob("*.rpm")):
    added = repository.add_to_pool(file, sha256(file))
    packages.append(added.published_in("testing", "debian-12/" + added.format))
following = repository.current() + 1
repository.change(following, start=following - 1, added=packages, removed=[])
repository.switch(following)
print(json.dumps(seen))
"""
EVENTS = ("os.rename", "subprocess.Popen", "os.symlink", "os.link", "os.mkdir", "write", "flush")
# So many points of each kind are tried at most, spread evenly, the last one always.
POINTS = 5


def open_repository(directory: Path, signer: Signer) -> Repository:
    return Repository(directory, signer, origin="Test", url="http://repository.example")


def runtime_of(signer: Signer) -> Path:
    """The signer's own, so that a killed child leaves no agent but the one that the signer ends."""
    return signer.home.parent / "runtime"


def publish_in_a_child(
    signer: Signer, directory: Path, files: Path, event: str = "", number: int = 0
) -> subprocess.CompletedProcess[str]:
    words = [signer.home, runtime_of(signer), directory, files, event, number]
    return subprocess.run(
        [sys.executable, "-c", PUBLISH, *map(str, words)],
        env={**variables(), "PYTHONPATH": ":".join(sys.path)},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def published(tmp_path: Path, signer: Signer) -> Path:
    """A repository whose first generation is shown."""
    repository = open_repository(tmp_path / "repository", signer)
    file = make_deb(tmp_path)
    repository.build(1, [repository.add_to_pool(file, sha256(file)).published_in("testing", "debian-12/deb")])
    repository.switch(1)
    return repository.directory


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What the second generation adds."""
    directory = tmp_path / "files"
    directory.mkdir()
    make_deb(directory, version="2.0")
    shutil.copy(make_rpm(tmp_path), directory)
    return directory


def test_killed_at_any_point(tmp_path: Path, published: Path, files: Path, signer: Signer):
    whole = publish_in_a_child(signer, shutil.copytree(published, tmp_path / "whole/r", symlinks=True), files)
    assert whole.returncode == 0, whole.stderr
    seen = json.loads(whole.stdout)
    outcomes = set()
    for event in EVENTS:
        assert seen[event] > 0
        step = -(-seen[event] // POINTS)
        for number in range(seen[event], 0, -step):
            directory = shutil.copytree(published, tmp_path / f"{event}-{number}/r", symlinks=True)
            killed = publish_in_a_child(signer, directory, files, event, number)
            assert killed.returncode == -signal.SIGKILL, killed.stderr
            outcomes.add(check_after_a_kill(directory, files, signer))
    assert outcomes == {1, 2}


def check_after_a_kill(directory: Path, files: Path, signer: Signer) -> int:
    repository = open_repository(directory, signer)
    current = repository.current()
    assert current in (1, 2)
    assert repository.verify(current) == []
    assert len(repository.read(current).packages) == (1 if current == 1 else 3)
    # The next start: nothing is left over, and the same work comes to its end.
    repository.discard_unfinished()
    assert not (directory / "incoming").exists()
    assert {path.name for path in (directory / "generations").iterdir()} == {str(n) for n in range(1, current + 1)}
    packages = set(repository.read(current).packages)
    for file in [*files.glob("*.deb"), *files.glob("*.rpm")]:
        added = repository.add_to_pool(file, sha256(file))
        packages.add(added.published_in("testing", f"debian-12/{added.format}"))
    assert len(packages) == 3
    repository.build(current + 1, packages)
    assert repository.verify(current + 1) == []
    return current


# Mounts a small file system in a mount namespace of its own, which ends with the process.
FULL_DISK = """
import os, subprocess, sys
from pathlib import Path
from cleanroom_base.errors import InfrastructureError
from cleanroom_master.publish.repository import Repository
from cleanroom_master.publish.signing import Signer
from tiny_packages import sha256

home, runtime, directory, files = map(Path, sys.argv[1:])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", directory], check=True)
signer = Signer(home, runtime, user_id="Test repository")
repository = Repository(directory / "repository", signer, origin="Test", url="http://repository.example")

def publish(number):
    packages = []
    for file in sorted(files.glob("*.deb")) + sorted(files.glob("*.rpm")):
        added = repository.add_to_pool(file, sha256(file))
        packages.append(added.published_in("testing", "debian-12/" + added.format))
    repository.build(number, packages)
    assert repository.verify(number) == []
    repository.switch(number)

repository.build(1, [])
repository.switch(1)
filler = directory / "filler"
refusals = 0
for free in range(0, 400, 20):
    filler.unlink(missing_ok=True)
    space = os.statvfs(directory)
    with filler.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, space.f_bavail * space.f_frsize - free * 1024)
    try:
        publish(2)
        break
    except InfrastructureError as error:
        print(free, error)
        refusals += 1
    assert repository.current() == 1
    assert repository.verify(1) == []
    repository.discard_unfinished()
filler.unlink()
publish(3)
assert repository.current() == 3
print("refusals", refusals)
"""


def test_a_full_disk_is_a_clear_error_and_the_old_generation_stays(tmp_path: Path, files: Path, signer: Signer):
    mount = tmp_path / "mount"
    mount.mkdir()
    words = [signer.home, runtime_of(signer), mount, files]
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", sys.executable, "-c", FULL_DISK, *map(str, words)],
        env={**variables(), "PYTHONPATH": ":".join(sys.path)},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the disk is full" in done.stdout
    assert int(done.stdout.split()[-1]) > 3

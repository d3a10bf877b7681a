"""The place of a torture: a small disk of its own, a clock of its own, and the installation that lives on them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from live_site import LiveSite
from surroundings import copied_image

from cleanroom_workers import mounts

HOOK = Path(__file__).parent / "hook"
# Short, so that a pause past it is short. The master renews a lease three times in it.
LEASE = 8.0
_CLOCK = Path(__file__).with_name("clock.c")
_DISK = 6 << 30
_START_TIMEOUT = 600.0
_SETTINGS = {
    "CLEANROOM_MASTER_LEASE": f"{LEASE:g}",
    # A person's patience is not what is tested: who is held for the surroundings' sake is tried again by the driver.
    "CLEANROOM_MASTER_ATTEMPTS": "4",
    "CLEANROOM_STORAGE_MINIMUM_FREE": "200",
    "CLEANROOM_WORKER_DISK": "2048",
    "CLEANROOM_WORKER_MEMORY": "1024",
    "CLEANROOM_WORKER_PARALLEL": "3",
}


@dataclass(frozen=True)
class Place:
    """Where a torture happens; `root` is kept between runs for its image and what the proxy downloaded."""

    root: Path

    @property
    def disk(self) -> Path:
        """Where the small disk is mounted."""
        return self.root / "disk"

    @property
    def state(self) -> Path:
        """The installation's state, on the small disk."""
        return self.disk / "state"

    @property
    def temporary(self) -> Path:
        """Where programs of the installation make temporary files."""
        return self.disk / "tmp"

    @property
    def control(self) -> Path:
        """By what processes are told at which boundary to die."""
        return self.root / "control"

    @property
    def clock(self) -> Path:
        """The file with what the installation's clock differs by."""
        return self.root / "clock"

    def set_clock(self, seconds: int) -> None:
        """Have the installation's clock differ from the machine's by so many seconds, from now on."""
        # In place: it is mapped by all processes of the installation.
        with self.clock.open("r+b" if self.clock.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))

    def environment(self) -> dict[str, str]:
        """What all processes of the installation are told besides their settings."""
        return {
            **_SETTINGS,
            "LD_PRELOAD": str(self.root / "clock.so"),
            "TORTURE_CLOCK": str(self.clock),
            "PYTHONPATH": str(HOOK),
            "TORTURE_CONTROL": str(self.control),
            "TMPDIR": str(self.temporary),
        }


@contextmanager
def installed(place: Place, keeps: Callable[[], bool]) -> Iterator[LiveSite]:
    """An installation that runs there; it is ended afterwards, however that comes about.

    Its disk stays mounted, for whoever looks at what went wrong, if `keeps` says so or something is raised.
    """
    _clear(place)
    _make(place)
    with ExitStack() as ending:
        ending.callback(_kill_strays, place)
        site = LiveSite(place.state, **place.environment(), **_traced(place))
        (site.state / "images").symlink_to(place.root / "images")
        (site.state / "proxy").symlink_to(place.root / "proxy")
        for directory in (site.site, site.repositories):
            directory.mkdir()
        (site.site / "cleanroom.toml").write_text('[publisher]\ncanary = "no"\n')
        (place.root / "environment.json").write_text(json.dumps(site.environment))
        ending.callback(end, place, site)
        started = site.run("up", "--detach", "--timeout", f"{_START_TIMEOUT:.0f}", timeout=_START_TIMEOUT + 60)
        if started.status != 0:
            raise SystemExit(f"torture: the installation does not start: {started.error}")
        yield site
    if not keeps():
        _unmount(place)


def end(place: Place, site: LiveSite) -> None:
    """End the installation as a person does, whatever became of it; then what is left of its processes."""
    place.set_clock(0)
    with contextlib.suppress(subprocess.TimeoutExpired):
        site.run("down", timeout=_START_TIMEOUT)


def strays(place: Place) -> dict[int, str]:
    """Processes that have to do with the place: by their working directory, or what their command line names."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            there = (entry / "cwd").readlink()
            if int(entry.name) != os.getpid() and (
                f"{place.disk}/" in words or f"{there}/".startswith(f"{place.disk}/")
            ):
                found[int(entry.name)] = words
    return found


def _traced(place: Place) -> dict[str, str]:
    """Where boundaries are looked for, what comes by is written down."""
    return {"TORTURE_TRACE": str(place.root / "trace")} if (place.root / "trace").is_dir() else {}


def _make(place: Place) -> None:
    copied_image(place.root)
    for directory in (place.root / "proxy", place.control, place.disk):
        directory.mkdir(parents=True, exist_ok=True)
    image = place.root / "disk.img"
    with image.open("wb") as file:
        file.truncate(_DISK)
    # No reserve for root, or a disk that is full would not be so to us.
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image], check=True, timeout=60)
    subprocess.run(["mount", "-o", "loop", image, place.disk], check=True, timeout=60)
    place.state.mkdir()
    place.temporary.mkdir()
    place.temporary.chmod(0o1777)
    place.set_clock(0)
    library = ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", place.root / "clock.so", _CLOCK]
    subprocess.run(library, check=True, timeout=60)


def _clear(place: Place) -> None:
    """What an earlier torture that was killed left."""
    if mounts.mounted(place.disk):
        noted = place.root / "environment.json"
        if noted.exists():
            site = LiveSite(place.state)
            site.environment = json.loads(noted.read_text())
            end(place, site)
        _unmount(place)
    shutil.rmtree(place.control, ignore_errors=True)
    (place.root / "disk.img").unlink(missing_ok=True)


def _unmount(place: Place) -> None:
    """Take the disk away, and whoever still has to do with it."""
    _kill_strays(place)
    for below in mounts.below(place.disk):
        mounts.unmount(below)
    deadline = time.monotonic() + 20
    while mounts.mounted(place.disk):
        done = subprocess.run(["umount", place.disk], check=False, capture_output=True, timeout=60)
        if done.returncode != 0 and time.monotonic() > deadline:
            subprocess.run(["umount", "--lazy", place.disk], check=False, timeout=60)
        time.sleep(0.1)


def _kill_strays(place: Place) -> None:
    for process in strays(place):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)
            os.kill(process, signal.SIGKILL)

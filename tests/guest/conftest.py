"""Real guests: an image is built once and kept between runs, since that takes a minute or more."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from surroundings import IMAGE, copied_image, kept_between_runs

from cleanroom_base.settings import Settings, load
from cleanroom_workers.guest import Guest
from cleanroom_workers.host import Host
from cleanroom_workers.records import Owner


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The variables of an installation for tests, as its processes have them."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    return {
        "CLEANROOM_STATE": str(kept_between_runs() / "guest"),
        "CLEANROOM_SITE": "/nonexistent",
        "CLEANROOM_WORKER_DISK": "4096",
        "CLEANROOM_REPOSITORY_PORT": str(port),
    }


@pytest.fixture(scope="session")
def settings(environment: dict[str, str]) -> Settings:
    return load(environment)


@pytest.fixture(scope="session")
def host(settings: Settings) -> Iterator[Host]:
    # Tests change images, and others run beside these.
    copied_image(settings.state)
    host = Host.open(settings)
    # What a run left behind that was killed is not to be found among the guests of this one.
    host.reap()
    yield host
    host.stop()


@pytest.fixture
def guest(host: Host) -> Iterator[Guest]:
    with host.reset(IMAGE, isolation="container", owner=Owner.current()) as guest:
        yield guest


@pytest.fixture
def traces(settings: Settings) -> Iterator[None]:
    """Nothing may be left of the guests of a test: compare before and after."""
    before = _traces(settings)
    yield
    assert _traces(settings) == before


def _traces(settings: Settings) -> dict[str, list[str]]:
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    below = f"{settings.state}/"
    groups = Path("/sys/fs/cgroup").glob("*/cleanroom-*")
    return {
        "mounts": sorted(line.split()[4] for line in mounts if line.split()[4].startswith(below)),
        "links": sorted(
            path.name for path in Path("/sys/class/net").iterdir() if f"cg{settings.instance[:6]}g" in path.name
        ),
        "guests": sorted(path.name for path in (settings.state / "guests").iterdir()),
        "connections": sorted(path.name for path in (settings.runtime / "ssh").glob("*")),
        "locks": sorted(path.name for path in (settings.runtime / "locks").glob("*")),
        "users": sorted(str(path) for path in (settings.state / "images").glob("*/users/*")),
        "loops": sorted(
            path.parent.parent.name
            for path in Path("/sys/block").glob("loop*/loop/backing_file")
            if path.read_text(encoding="utf-8").startswith(below)
        ),
        "groups": sorted(str(path) for path in groups if IMAGE in path.name and _ours(path, settings)),
    }


def _ours(group: Path, settings: Settings) -> bool:
    return (settings.state / "guests" / group.name.removeprefix("cleanroom-")).exists()

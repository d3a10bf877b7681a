"""Real guests: an image is built once and kept between runs, since that takes a minute or more."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from surroundings import IMAGE, copied_image, of_this_process
from traces import of_guests

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
        "CLEANROOM_STATE": str(of_this_process("guest")),
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
    before = of_guests(settings)
    yield
    assert of_guests(settings) == before

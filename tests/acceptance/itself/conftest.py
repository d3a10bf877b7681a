"""An installation that has Cleanroom itself as its product."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_site import LiveSite, installed
from surroundings import of_this_process


@pytest.fixture(scope="session")
def site() -> Iterator[LiveSite]:
    """Everything runs, in the background; what it installs in guests is large, and nobody is killed."""
    more = {"CLEANROOM_WORKER_DISK": "12288", "CLEANROOM_MASTER_LEASE": "180"}
    with installed(of_this_process("acceptance-itself"), **more) as site:
        started = site.run("up", "--detach", timeout=180)
        assert started.status == 0, started
        yield site

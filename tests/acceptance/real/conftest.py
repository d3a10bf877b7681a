"""Source packages of Debian, in an installation that runs and repeats what fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from debian_sources import Sources
from live_site import LiveSite, installed
from surroundings import of_this_process


@pytest.fixture(scope="session")
def site() -> Iterator[LiveSite]:
    """Everything runs, in the background; phases whose tests failed are repeated as a recipe says."""
    with installed(of_this_process("acceptance-real"), CLEANROOM_MASTER_REPLAYS="5", CLEANROOM_IMAGES_KEEP="3") as site:
        started = site.run("up", "--detach", timeout=180)
        assert started.status == 0, started
        yield site


@pytest.fixture(scope="session")
def sources(site: LiveSite, tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(site, tmp_path_factory.mktemp("sources"))

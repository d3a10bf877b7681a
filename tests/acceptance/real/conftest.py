"""Source packages of Debian, in an installation that runs."""

from __future__ import annotations

import pytest
from debian_sources import Sources
from live_site import LiveSite


@pytest.fixture(scope="session")
def sources(site: LiveSite, tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(site, tmp_path_factory.mktemp("sources"))

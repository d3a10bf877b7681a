"""An installation that runs for all acceptance tests: started and ended as a person does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_site import LiveSite, installed

# Fixtures that the unit tests of the publication share.
from publishing import repository, signer

__all__ = ["repository", "signer", "site"]


@pytest.fixture(scope="session")
def site() -> Iterator[LiveSite]:
    """Everything runs, in the background."""
    shared = Path(os.environ.get("CLEANROOM_TEST_STATE", "/var/tmp/cleanroom-test"))
    with installed(shared / "acceptance") as site:
        started = site.run("up", "--detach", timeout=180)
        assert started.status == 0, started
        yield site

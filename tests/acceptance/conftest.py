"""An installation that runs for all acceptance tests: started and ended as a person does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_site import LiveSite, installed

# Fixtures that the unit tests of the publication share.
from publishing import home_of_two_keys, open_two_keys, repository, runtime, signer, two_keys
from surroundings import of_this_process

__all__ = ["home_of_two_keys", "open_two_keys", "repository", "runtime", "signer", "site", "two_keys"]


@pytest.fixture(scope="session")
def site() -> Iterator[LiveSite]:
    """Everything runs, in the background."""
    with installed(of_this_process("acceptance")) as site:
        started = site.run("up", "--detach", timeout=180)
        assert started.status == 0, started
        yield site

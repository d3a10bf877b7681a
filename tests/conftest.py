"""What holds for all tests."""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from quick_place import quick_place
from xdist.scheduler import LoadScopeScheduling

# A busy machine makes an example slow, not wrong: tests never judge time.
settings.register_profile("cleanroom", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
# `make fuzz` says how many.
settings.register_profile(
    "fuzz", settings.get_profile("cleanroom"), max_examples=int(os.environ.get("EXAMPLES", "30000"))
)
settings.load_profile("cleanroom")


# Tests flush what they write, as the product does; a disk would make them wait for it.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(quick_place()))

# Folders whose tests share what is dear to start: a host with guests, or a whole installation.
_WITH_GUESTS = ("guest", "packages", "real", "compose", "acceptance", "trouble")
# These go one after the other on one installation: each costs something all the time.
_ONE_INSTALLATION = ("packages", "trouble")


class _Together(LoadScopeScheduling):
    """What one process runs, one after the other: tests with guests share a host, others their file's fixtures."""

    def _split_scope(self, nodeid: str) -> str:
        file = PurePath(nodeid.partition("::")[0])
        if file.parent.name in _ONE_INSTALLATION:
            return str(file.parent.parent / " and ".join(_ONE_INSTALLATION))
        return str(file.parent if file.parent.name in _WITH_GUESTS else file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Together:
    """How tests are given to processes, where there are several."""
    return _Together(config, log)

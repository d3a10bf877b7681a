"""What holds for all tests."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# A busy machine makes an example slow, not wrong: tests never judge time.
settings.register_profile("cleanroom", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cleanroom")


# Before pytest-xdist looks for what is said here.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what runs side by side (pytest-xdist): tests with guests share a host, others their file's fixtures."""
    for item in items:
        directory = item.path.parent.name
        together = directory if directory in ("guest", "acceptance") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(together))

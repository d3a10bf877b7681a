"""What tests take from the machine on which they run."""

from __future__ import annotations

import os
from pathlib import Path

# The image that guests of tests start from.
IMAGE = "debian-12"


def variables() -> dict[str, str]:
    """The environment without our own settings: programs refuse those they do not know, and must meet no others."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CLEANROOM_")}


def kept_between_runs() -> Path:
    """The directory of the images that tests build, and of what they download."""
    return Path(os.environ.get("CLEANROOM_TEST_STATE", "/var/tmp/cleanroom-test"))

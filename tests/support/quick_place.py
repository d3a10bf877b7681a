"""Where tests put what they forget at once."""

from __future__ import annotations

import shutil
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ENOUGH = 4 << 30


def quick_place() -> Path:
    """A directory in memory, where there is one with room: a database is cloned there ten times as fast."""
    return _MEMORY if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ENOUGH else Path("/tmp")

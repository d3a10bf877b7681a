"""Which code this is: so that what runs can be told from what is installed."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

_PACKAGES = (
    "cleanroom_base",
    "cleanroom_recipes",
    "cleanroom_db",
    "cleanroom_images",
    "cleanroom_workers",
    "cleanroom_master",
)
_CODE = (".py", ".sql", ".html", ".js", ".css", ".pl")


def digests() -> dict[str, str]:
    """The digest of each of our packages as it is installed now."""
    return {name: _digest(Path(str(resources.files(name)))) for name in _PACKAGES}


def _digest(package: Path) -> str:
    whole = hashlib.sha256()
    for file in sorted(package.rglob("*")):
        if file.suffix in _CODE and file.is_file():
            whole.update(f"{file.relative_to(package)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()

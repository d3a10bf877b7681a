"""What a worker says of itself. In a module of its own: the command line compares it, and starts often."""

from __future__ import annotations

from importlib.metadata import version


def described() -> str:
    """With what version of Cleanroom a worker works."""
    return f"Cleanroom {version('cleanroom')}"

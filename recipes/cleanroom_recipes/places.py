"""Where the files that come with this package are: the builders and the shipped products.

In a checkout they lie beside the package (so that a person finds `recipes/builders` at once); in an installed
distribution they lie inside it.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def builders() -> Path:
    """The directory with one folder a builder."""
    return _place("builders")


def products() -> Path:
    """The directory of the shipped recipes."""
    return _place("products")


def _place(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name

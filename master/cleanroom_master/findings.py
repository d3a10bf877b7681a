"""What `cleanroom doctor` says of one thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `optional`: Cleanroom does without it."""

    what: str
    works: bool
    detail: str
    remedy: str = ""
    optional: bool = False

    @property
    def plain(self) -> dict[str, object]:
        """As JSON knows it."""
        return {
            "what": self.what,
            "works": self.works,
            "optional": self.optional,
            "detail": self.detail,
            "remedy": self.remedy,
        }

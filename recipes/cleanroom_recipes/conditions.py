"""What a trial's guests start from that is otherwise than for a release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from cleanroom_recipes import names
from cleanroom_recipes.codec import Text

ImageDigest = Annotated[str, Text(64, names.SHA256, "an image's digest in 64 hexadecimal digits")]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is otherwise; nothing of it is set for a release.

    `image_digest`: guests start from this digest of the target's image, not from the present one. `varied`: the
    build runs in other circumstances (time, path, locale, host name, user, order of files), to see whether its bytes
    depend on them. `packages`: exact versions of packages (by name) that are installed before anything else.
    """

    image_digest: ImageDigest | None = None
    varied: bool = False
    packages: Mapping[str, str] = field(default_factory=dict)

    @property
    def usual(self) -> bool:
        """Whether nothing is otherwise."""
        return self == Conditions()

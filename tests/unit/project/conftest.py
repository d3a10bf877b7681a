"""The torture is a program of its own; here its parts are looked at."""

from __future__ import annotations

import sys
from pathlib import Path

_TORTURE = Path(__file__).parents[2] / "torture"
sys.path += [str(_TORTURE), str(_TORTURE / "hook")]

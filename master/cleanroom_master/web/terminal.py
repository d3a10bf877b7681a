"""A line that a program printed, as HTML: colours as classes, everything else harmless.

Source of the sequences: ECMA-48, 5.4 (control sequences), 8.3.117 (SGR); xterm's control sequences for operating
system commands and for colours beyond the first sixteen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from markupsafe import Markup, escape

from cleanroom_master.web.text import shown

_SEQUENCE = re.compile(
    r"\x1b\[(?P<parameters>[0-9;:]*)m"  # colours, which are kept
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # other control sequences: they move the cursor, and are left out
    r"|\x1b\][^\x07\x1b]{0,2048}(?:\x07|\x1b\\)"  # titles and links
    r"|\x1b[ -/]*[0-~]"
)
_ATTRIBUTES = {1: "bold", 2: "faint", 3: "italic", 4: "underline", 7: "inverse", 9: "struck"}
_ENDS = {22: ("bold", "faint"), 23: ("italic",), 24: ("underline",), 27: ("inverse",), 29: ("struck",)}
# The sixteen colours as most terminals have them, to find the nearest of any other.
_PALETTE = (
    *((0, 0, 0), (205, 0, 0), (0, 205, 0), (205, 205, 0), (0, 0, 238), (205, 0, 205), (0, 205, 205), (229, 229, 229)),
    *((127, 127, 127), (255, 0, 0), (0, 255, 0), (255, 255, 0), (92, 92, 255), (255, 0, 255), (0, 255, 255)),
    (255, 255, 255),
)
_STEPS = (0, 95, 135, 175, 215, 255)


@dataclass(frozen=True)
class _Look:
    """How what follows is printed; a colour is one of sixteen."""

    ink: int | None = None
    ground: int | None = None
    attributes: frozenset[str] = frozenset()

    @property
    def classes(self) -> str:
        """As the style sheet knows it."""
        words = sorted(self.attributes)
        words += [f"ink-{self.ink}"] if self.ink is not None else []
        words += [f"ground-{self.ground}"] if self.ground is not None else []
        return " ".join(words)


_PLAIN = _Look()


def rendered(line: bytes) -> Markup:
    """A line, without its end, as HTML. What a carriage return would have overwritten is left out."""
    text = line.decode(errors="replace").rstrip("\r")
    text = text[text.rfind("\r") + 1 :]
    if "\x1b" not in text:
        return escape(shown(text))
    return Markup("").join(_pieces(text))


def _pieces(text: str) -> Iterator[Markup]:
    look, place = _PLAIN, 0
    for found in _SEQUENCE.finditer(text):
        yield _piece(text[place : found.start()], look)
        place = found.end()
        if found["parameters"] is not None:
            look = _changed(look, found["parameters"])
    yield _piece(text[place:], look)


def _piece(text: str, look: _Look) -> Markup:
    if not text or look == _PLAIN:
        return escape(shown(text))
    return Markup('<span class="{}">{}</span>').format(look.classes, shown(text))


def _changed(look: _Look, parameters: str) -> _Look:
    codes = [int(word[:4] or 0) for word in re.split("[;:]", parameters)[:32]]
    while codes:
        code = codes.pop(0)
        if code == 0:
            look = _PLAIN
        elif code in _ATTRIBUTES:
            look = replace(look, attributes=look.attributes | {_ATTRIBUTES[code]})
        elif code in _ENDS:
            look = replace(look, attributes=look.attributes.difference(_ENDS[code]))
        elif code in (38, 48):
            colour = _further(codes)
            look = replace(look, ink=colour) if code == 38 else replace(look, ground=colour)
        elif code in (39, 49):
            look = replace(look, ink=None) if code == 39 else replace(look, ground=None)
        elif 30 <= code <= 37 or 90 <= code <= 97:
            look = replace(look, ink=code - 30 if code < 90 else code - 82)
        elif 40 <= code <= 47 or 100 <= code <= 107:
            look = replace(look, ground=code - 40 if code < 100 else code - 92)
    return look


def _further(codes: list[int]) -> int | None:
    """The colour that 5 and a number, or 2 and three numbers, name; taken from `codes`."""
    kind = codes.pop(0) if codes else None
    if kind == 5 and codes:
        return _of_256(min(codes.pop(0), 255))
    if kind == 2 and len(codes) >= 3:
        red, green, blue = codes[:3]
        del codes[:3]
        return _nearest(red, green, blue)
    return None


def _of_256(number: int) -> int:
    if number < 16:
        return number
    if number >= 232:
        grey = 8 + (number - 232) * 10
        return _nearest(grey, grey, grey)
    number -= 16
    return _nearest(_STEPS[number // 36], _STEPS[number // 6 % 6], _STEPS[number % 6])


@cache
def _of_cube(red: int, green: int, blue: int) -> int:
    def distance(colour: tuple[int, int, int]) -> int:
        return sum((one - other) ** 2 for one, other in zip(colour, (red, green, blue), strict=True))

    return min(range(16), key=lambda index: distance(_PALETTE[index]))


def _nearest(red: int, green: int, blue: int) -> int:
    """The nearest of the sixteen colours; neighbours are treated alike, so that few are ever looked for."""
    coarse = [min(value, 255) // 16 * 16 for value in (red, green, blue)]
    return _of_cube(*coarse)

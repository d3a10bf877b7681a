"""The errors of Cleanroom.

Two families are kept apart everywhere: the *product* failed (its release is not good) and the
*infrastructure* failed (nobody's release is to blame; the work is retried). The distinction is in the type,
so that no caller has to guess from a message.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar


class CleanroomError(Exception):
    """Something went wrong in Cleanroom."""

    exit_status: ClassVar[int] = 3

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        """`message` says what happened and why (default: the class's docstring); `hint` says what to do next."""
        self.message = message or (type(self).__doc__ or "").splitlines()[0]
        self.hint = hint
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"


class ProductError(CleanroomError):
    """The product is at fault: its build or one of its tests failed."""

    exit_status = 1


class InfrastructureError(CleanroomError):
    """The surroundings are at fault, not the product; the work can be tried again."""

    exit_status = 3


class TimedOut(InfrastructureError):
    """A wait ended without its condition."""

    exit_status = 4


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an input, and where: `place` is a path such as `phases[1].steps[0].timeout`."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class InputError(CleanroomError):
    """The input is not valid."""

    exit_status = 2

    def __init__(
        self, message: str | None = None, *, problems: Iterable[Problem] = (), hint: str | None = None
    ) -> None:
        """`problems` lists everything that is wrong, so that one correction suffices."""
        self.problems = tuple(problems)
        super().__init__(message, hint=hint)

    def __str__(self) -> str:
        lines = [self.message, *(f"  {problem}" for problem in self.problems)]
        if self.hint is not None:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


def causes(error: BaseException) -> list[str]:
    """The messages of `error` and of everything that led to it, outermost first, one a line."""
    lines: list[str] = []
    current: BaseException | None = error
    while current is not None:
        text = str(current) or type(current).__name__
        # A wrapper often quotes what it wraps: said once is enough.
        if not any(text in line for line in lines):
            lines.append(text)
        current = current.__cause__
    return lines

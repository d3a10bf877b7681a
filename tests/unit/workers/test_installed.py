"""What a guest says of its packages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from cleanroom_base.errors import CleanroomError, ProductError
from cleanroom_base.run import Completed, OutputLimitExceeded
from cleanroom_recipes import events
from cleanroom_workers.installed import packages


class Guest:
    """A guest in which the package managers print something, or cannot be asked."""

    def __init__(self, prints: Mapping[str, bytes], error: CleanroomError | None = None) -> None:
        self._prints = prints
        self._error = error

    def run(self, command: Sequence[str], *, timeout: float, output_limit: int | None = None) -> Completed:
        if self._error is not None:
            raise self._error
        return Completed(tuple(command), 0, self._prints.get(command[0], b""), b"", 0.0)


DPKG = b"installed libc6 2.36-9+deb12u4\ninstalled tzdata 2024a-0+deb12u1\nconfig-files gone 1\n"


def test_packages_are_told_by_name_and_exact_version() -> None:
    guest = Guest({"dpkg-query": DPKG, "rpm": b"installed tally 1.0-1\n"})
    found = {"libc6": "2.36-9+deb12u4", "tzdata": "2024a-0+deb12u1"}
    assert packages(guest, rpm=False) == found
    assert packages(guest, rpm=True) == {**found, "rpm:tally": "1.0-1"}
    told = events.Installed(events.now(), packages(guest, rpm=True))
    assert events.decode(events.encode(told)) == told


def test_what_is_no_package_is_left_out() -> None:
    hostile = b"installed ../x 1\ninstalled x $(id)\n\xff\xfe\ninstalled " + b"y" * 300 + b" 1\ninstalled ok 1\n"
    assert packages(Guest({"dpkg-query": hostile}), rpm=False) == {"ok": "1"}


def test_of_too_much_nothing_is_taken() -> None:
    many = b"".join(b"installed p%d 1\n" % number for number in range(6000))
    assert packages(Guest({"dpkg-query": many}), rpm=False) == {}
    long = b"".join(b"installed %04d%s 1\n" % (number, b"n" * 180) for number in range(1000))
    assert packages(Guest({"dpkg-query": long}), rpm=False) == {}


@pytest.mark.parametrize("error", [ProductError("the guest was lost"), OutputLimitExceeded("too much")])
def test_a_guest_that_cannot_be_asked_says_nothing(error: CleanroomError) -> None:
    assert packages(Guest({}, error), rpm=True) == {}

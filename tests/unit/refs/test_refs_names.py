"""Names of refs: which may become releases, how the others are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom_master.refs import names


@pytest.mark.parametrize(
    "name", [b"v1", b"v1.2.3-rc1", b"debian/2.10-3", b"upstream/1%2.0_rc1", b"release@2", b"v" * 255]
)
def test_usual_names_are_kept(name: bytes) -> None:
    assert names.problem(name) is None
    assert names.readable(name) == name.decode()


@pytest.mark.parametrize(
    ("name", "shown", "why"),
    [
        (b"", "(empty)", "empty"),
        (b"-rf", r"\x2drf", "begins with a dash"),
        (b"v1;reboot", "v1;reboot", "characters other than"),
        (b"$(reboot)", "$(reboot)", "characters other than"),
        (b"v1 2", r"v1\x202", "characters other than"),
        (b"v1\nv2", r"v1\x0av2", "characters other than"),
        (b"\x1b[31mv1", r"\x1b[31mv1", "characters other than"),
        (b"v\xff1", r"v\xff1", "not ASCII"),
        ("vé1".encode(), r"v\xc3\xa91", "not ASCII"),
    ],
)
def test_hostile_names_are_shown_in_a_readable_form(name: bytes, shown: str, why: str) -> None:
    assert names.readable(name) == shown
    problem = names.problem(name)
    assert problem is not None
    assert why in problem


def test_a_long_name_is_cut_short_and_stays_its_own() -> None:
    first, second = names.readable(b"v" * 300), names.readable(b"v" * 301)
    assert len(first) <= names.LIMIT
    assert first != second
    assert names.problem(b"v" * 300) == "the name has 300 characters, 255 are the limit"


@given(st.binary(max_size=400))
def test_whatever_the_name_it_can_be_stored(name: bytes) -> None:
    shown = names.readable(name)
    assert 1 <= len(shown) <= names.LIMIT
    assert shown.isascii()
    assert shown.isprintable()
    assert not shown.startswith("-")


@given(st.binary(max_size=400), st.binary(max_size=400))
def test_different_names_of_git_are_shown_differently(one: bytes, other: bytes) -> None:
    # git-check-ref-format(1): no empty name, no backslash.
    one, other = (name.replace(b"\\", b"/") or b"x" for name in (one, other))
    assert (names.readable(one) == names.readable(other)) == (one == other)

"""Two addresses of one repository are the same, and nothing else is."""

from __future__ import annotations

import pytest

from cleanroom_master.repository_addresses import parts, place, same


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/Anna/Tool.git",
        "https://example.org/anna/tool",
        "https://token@EXAMPLE.org/anna/tool/",
        "ssh://git@example.org:2222/anna/tool.git",
        "git@example.org:anna/tool.git",
    ],
)
def test_the_same_repository(url: str) -> None:
    assert place(url) == ("example.org", "anna/tool")
    assert same(url, {"https://other.example/anna/tool", "https://example.org/anna/tool.git"})


@pytest.mark.parametrize(
    "url",
    ["/srv/git/tool.git", "file:///srv/git/anna/tool", "https://example.org/", "https://[bad/anna/tool", "", "tool"],
)
def test_what_has_no_place_is_nothing_else(url: str) -> None:
    assert place(url) is None
    assert not same(url, {"https://example.org/anna/tool.git", "/srv/git/other.git"})


def test_a_longer_name_is_another_repository() -> None:
    assert not same("https://example.org/anna/tool2", {"https://example.org/anna/tool"})
    assert not same("https://example.org.evil/anna/tool", {"https://example.org/anna/tool"})
    assert parts("https://example.org/Anna/Tool.git") == ("example.org", "Anna/Tool")

from __future__ import annotations

import pytest

from cleanroom_recipes import names


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("v1.2", "1.2"),
        ("1.2-3", "1.2-3"),
        ("debian/2.10-3", "2.10-3"),
        ("debian/1%2.0_rc1-1", "1:2.0~rc1-1"),
        ("debian/1.#.2-1", "1..2-1"),
        ("tally-1.0", "1.0"),
        ("nightly", None),
        ("v", None),
        ("version-two", None),
        ("v1.0; rm -rf /", None),
        ("v1.0\n", None),
    ],
)
def test_a_tag_promises_a_version(tag: str, version: str | None) -> None:
    assert names.version_of_tag(tag, name="tally") == version


def test_a_recipe_says_how_tags_look() -> None:
    assert names.version_of_tag("release_1.0_final", ("release_{version}_final",)) == "1.0"
    assert names.version_of_tag("1.0", ()) is None


@pytest.mark.parametrize("found", ["1.2", "1.2-3", "1:1.2-3", "1:1.2"])
def test_a_tag_may_leave_out_epoch_and_revision(found: str) -> None:
    assert names.version_agrees("1.2", found)


@pytest.mark.parametrize(
    ("expected", "found"), [("1.2", "1.3"), ("1.2-3", "1.2-4"), ("1.2-3", "1.2"), ("1.2", "1.2.1"), ("2:1.2", "1:1.2")]
)
def test_what_a_tag_says_must_be_so(expected: str, found: str) -> None:
    assert not names.version_agrees(expected, found)


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "-x", "a/b", "a\\b", "a b", "a\n", "ä", "x" * 201, "a:b"])
def test_names_of_files_are_narrow(name: str) -> None:
    assert not names.is_name(names.FILE, name)


def test_refs_are_matched_by_pattern() -> None:
    assert names.matches("v1.0", ("debian/*", "v[0-9]*"))
    assert not names.matches("V1.0", ("v*",))

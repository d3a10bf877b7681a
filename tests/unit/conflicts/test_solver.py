"""What the solver says of small worlds: who can be installed with whom, and why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cleanroom_base.errors import InfrastructureError
from cleanroom_master.conflicts.check import ask

# Releases by their numbers, each with its packages' paragraphs.
Releases = Mapping[int, Sequence[str]]


def deb(name: str, version: str = "1", **relations: str) -> str:
    fields = "".join(f"{field}: {value}\n" for field, value in relations.items())
    return f"Package: {name}\nVersion: {version}\nArchitecture: all\n{fields}"


def rpm(name: str, version: str = "1", **relations: Sequence[str]) -> str:
    lines = [f"=Pkg: {name} {version} 1 noarch"]
    own = {"Req": [], "Prv": [f"{name} = {version}-1"], "Con": [], "Obs": []}
    for word, some in own.items():
        lines += [f"+{word}:", *some, *relations.get(word, ()), f"-{word}:"]
    return "\n".join([*lines, ""])


def solve(published: Sequence[str], candidates: Releases, **more: Any) -> dict[str, Any]:
    """Have it answer; packages have the numbers 0, 1, ... in their order, the published ones first."""
    form = "rpm" if [*published, *(one for some in candidates.values() for one in some)][0].startswith("=") else "deb"
    number = 0

    def given(some: Sequence[str]) -> dict[str, Any]:
        nonlocal number
        number += len(some)
        ids = list(range(number - len(some), number))
        return {"ids": ids, "text": ("" if form == "rpm" else "\n").join(some)}

    question = {
        "format": form,
        "architecture": "amd64" if form == "deb" else "x86_64",
        "base": [],
        "remembered": None,
        "open": True,
        "known": [],
        "union": 0,
        "published": given(published),
        "candidates": [{"release": release, **given(some)} for release, some in candidates.items()],
        "checked": list(candidates),
        "pairs": [],
        "replaces": {},
        **more,
    }
    return ask(question)


def told(answer: Mapping[str, Any]) -> list[tuple[int, int, int | None, int | None]]:
    return [(one["release"], one["package"], one["other"], one["with_release"]) for one in answer["findings"]]


@pytest.mark.parametrize(
    ("published", "candidates"),
    [
        ([deb("lib")], {1: [deb("app", Depends="lib (>= 1), elsewhere (>= 7), python3:any")]}),
        ([deb("lib")], {1: [deb("app", Depends="lib (>= 5) | elsewhere")]}),
        ([deb("lib"), deb("app", Depends="lib")], {1: [deb("lib", "2")]}),
        # Who excludes every version of another is an alternative to it.
        ([deb("one")], {1: [deb("other", Conflicts="one")]}),
        ([], {1: [deb("one", Conflicts="mail", Provides="mail")], 2: [deb("two", Conflicts="mail", Provides="mail")]}),
        # What was so before is no news.
        ([deb("a", Breaks="b (<< 5)"), deb("b")], {1: [deb("a", "2", Breaks="b (<< 5)")]}),
        ([rpm("lib", Prv=["cap = 5"])], {1: [rpm("app", Req=["cap >= 4", "/bin/sh", "libc.so.6()(64bit)"])]}),
        ([rpm("old")], {1: [rpm("new", Obs=["old < 2"])]}),
    ],
)
def test_what_goes_together(published: Sequence[str], candidates: Releases) -> None:
    assert solve(published, candidates)["findings"] == []


@pytest.mark.parametrize(
    ("published", "candidates", "expected", "text"),
    [
        (
            [deb("lib")],
            {1: [deb("app", Depends="lib (>= 5)")]},
            [(1, 1, None, None)],
            "provides lib >= 5 needed by app",
        ),
        (
            [deb("lib"), deb("app", Depends="lib (<< 2)")],
            {1: [deb("lib", "2")]},
            [(1, 2, 1, None)],
            "app-1.all requires lib << 2",
        ),
        (
            [deb("lib")],
            {1: [deb("lib", "2")], 2: [deb("app", Depends="lib (<< 2)")]},
            [(1, 1, 2, 2), (2, 2, None, 1)],
            "app-1.all requires lib << 2",
        ),
        ([deb("old")], {1: [deb("new", Breaks="old (<< 2)")]}, [(1, 1, 0, None)], "exclude each other"),
        (
            [],
            {1: [deb("a", Depends="x (= 1)")], 2: [deb("b", Depends="x (= 2)")], 3: [deb("x"), deb("y", Breaks="a")]},
            [(2, 1, None, None)],
            "nothing provides x = 2 needed by b",
        ),
        (
            [],
            {1: [deb("a"), deb("a2", Depends="a")], 2: [deb("b", Conflicts="a (<< 2)")]},
            [(1, 0, 2, 2), (1, 1, 2, 2), (2, 2, 0, 1), (2, 2, 1, 1)],
            "conflicts with a << 2",
        ),
        # Two steps away: what needs the one that needs the library.
        (
            [deb("lib"), deb("middle", Depends="lib"), deb("app", Depends="middle, other"), deb("other")],
            {1: [deb("lib", "2", Breaks="other (<< 9)")]},
            [(1, 4, 3, None), (1, 4, 2, None)],
            "exclude each other",
        ),
        ([rpm("lib", Prv=["cap"]), rpm("app", Req=["cap"])], {1: [rpm("lib", "2")]}, [(1, 2, 1, None)], "requires cap"),
    ],
)
def test_what_does_not_go_together(
    published: Sequence[str], candidates: Releases, expected: list[tuple[int, int, int | None, int | None]], text: str
) -> None:
    answer = solve(published, candidates)
    assert told(answer) == expected
    assert text in answer["findings"][0]["text"]


def test_alternatives_below_two_candidates_are_found_by_the_distribution_s_packages(tmp_path: Path) -> None:
    lists = tmp_path / "main_Packages"
    mailers = [deb(name, Provides="mta", Conflicts="mta") for name in ("exim", "postfix")]
    lists.write_text("\n".join(mailers))
    answer = solve([], {1: [deb("a", Depends="exim")], 2: [deb("b", Depends="postfix")]}, base=[str(lists)], open=False)
    assert told(answer) == [(1, 0, 1, 2), (2, 1, 0, 1)]
    missing = solve([], {1: [deb("a", Depends="sendmail")]}, base=[str(lists)], open=False)
    assert told(missing) == [(1, 0, None, None)]


def test_what_was_read_of_the_distribution_is_remembered(tmp_path: Path) -> None:
    lists, remembered = tmp_path / "lists_Packages", tmp_path / "remembered"
    lists.write_text(
        "\n".join(deb(f"lib{number}", "2", Depends="libc6") for number in range(9)) + "\n" + deb("libc6", "2")
    )
    # One of them is excluded by what only the distribution knows.
    questions = [deb("a", Depends="lib1 (>= 2), lib8"), deb("b", Depends="lib1 (>= 3)"), deb("c", Depends="lib9")]

    def answers(**more: Any) -> list[Any]:
        return [solve([], {1: [one]}, base=[str(lists)], open=False, **more)["findings"] for one in questions]

    known = answers()
    assert [bool(found) for found in known] == [False, True, True]
    assert answers(remembered=str(remembered)) == known
    lists.write_text("")
    assert answers(remembered=str(remembered)) == known
    assert answers() != known
    # What cannot be read is read anew from the lists, and what cannot be kept is not.
    remembered.write_bytes(remembered.read_bytes()[:50])
    lists.write_text(deb("lib1", "3"))
    assert [bool(found) for found in answers(remembered=str(remembered))] == [True, False, True]
    assert [bool(found) for found in answers(remembered=str(tmp_path / "missing/one"))] == [True, False, True]
    assert {path.name for path in tmp_path.iterdir()} == {"lists_Packages", "remembered"}


def test_only_the_newest_version_of_a_name_counts() -> None:
    old, new, same = deb("lib"), deb("lib", "2"), deb("other", Replaces="lib")
    answer = solve([old, new], {1: [same]}, pairs=[[2, 0], [2, 1]], replaces={"0": "", "1": "", "2": ""})
    assert answer["shared"] == [False, True]
    assert answer["packages"] == 2


@pytest.mark.parametrize(
    ("relations", "replaces", "clash"),
    [
        ({}, "", True),
        ({}, "lib", False),
        ({}, "lib (<< 2)", False),
        ({}, "lib(<<1)", True),
        ({}, "virtual", True),
        ({"Conflicts": "virtual"}, "", False),
        ({"Breaks": "lib (<= 1)"}, "", False),
    ],
)
def test_who_may_have_the_file_of_another(relations: Mapping[str, str], replaces: str, clash: bool) -> None:
    answer = solve(
        [deb("lib", Provides="virtual")],
        {1: [deb("app", **relations)]},
        pairs=[[1, 0]],
        replaces={"0": "", "1": replaces},
    )
    assert answer["shared"] == [clash]


def test_a_paragraph_that_is_none_is_said_and_not_left_out() -> None:
    with pytest.raises(InfrastructureError, match="0 of 1 packages could be read"):
        solve([], {1: ["Nonsense: yes\n"]})


def test_a_union_leaves_out_who_cannot_be_in_it() -> None:
    published = [deb("old", "1", Conflicts="one"), deb("two", "1"), deb("lib")]
    candidates = {1: [deb("one"), deb("one-other", Conflicts="one")], 2: [deb("two", "2", Depends="lib")]}
    answer = solve(published, candidates, checked=[1], union=100)
    assert (answer["together"], answer["left_out"]) == ([3, 5, 2], [4, 0])
    # Of a large channel only what is on its way into it.
    few = solve(published, candidates, checked=[1], union=1)
    assert (answer["whole"], few["whole"], few["together"]) == (True, False, [3, 5])

"""The line for a guest's shell: nothing in it means anything but itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom_base.errors import InputError
from cleanroom_workers.shell import remote_command

words = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=20)


@given(
    st.lists(words, max_size=5),
    st.dictionaries(st.from_regex(r"X[A-Z]{1,5}", fullmatch=True), words, max_size=3),
)
def test_words_and_environment_survive_a_shell(arguments: list[str], environment: dict[str, str]) -> None:
    line = remote_command(
        ["printf", "%s\\0", *arguments, *environment.values()],
        environment=environment,
        user="root",
        directory=None,
        mark="/x",
    )
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=True)
    expected = [*arguments, *environment.values()] or [""]
    assert done.stdout.decode().split("\0")[:-1] == expected


def test_root_has_a_plain_environment_and_nothing_of_the_session() -> None:
    line = remote_command(["env"], environment={"MADE": "here"}, user="root", directory=None, mark="/x")
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=True, text=True, env={"SSH_CLIENT": "1"})
    told = dict(variable.split("=", 1) for variable in done.stdout.splitlines())
    assert told.keys() == {"HOME", "SHELL", "USER", "LOGNAME", "PATH", "LANG", "MADE"}
    assert (told["HOME"], told["MADE"]) == ("/root", "here")


def test_255_leaves_a_mark_and_others_do_not(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for status, there in ((254, False), (255, True)):
        line = remote_command(
            ["sh", "-c", f"exit {status}"], environment=None, user="root", directory="/", mark=str(mark)
        )
        assert subprocess.run(["sh", "-c", line], check=False).returncode == status
        assert mark.exists() is there


@pytest.mark.parametrize(
    ("command", "user", "environment"),
    [
        ([], "root", {}),
        (["a\0b"], "root", {}),
        (["a"], "root;id", {}),
        (["a"], "-x", {}),
        (["a"], "root", {"A B": ""}),
        (["a"], "root", {"A": "\0"}),
    ],
)
def test_what_cannot_be_given_to_a_program(command: list[str], user: str, environment: dict[str, str]) -> None:
    with pytest.raises(InputError):
        remote_command(command, environment=environment, user=user, directory=None, mark="/x")

"""The line for a guest's shell: nothing in it means anything but itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom_base.errors import InputError, TimedOut
from cleanroom_workers import dial
from cleanroom_workers.processes import started
from cleanroom_workers.shell import ConnectionLost, Shell, remote_command

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


# -- the way to a guest that is still starting ---------------------------------------------------------------------

HERE = "127.0.0.1"


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server's socket that refuses connections until it listens."""
    with socket.socket() as server:
        server.bind((HERE, 0))
        yield server


def _dialled(port: int, ssh: socket.socket, owner: int, seconds: float = 60) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-S", dial.__file__, HERE, str(port), str(seconds), str(owner)]
    return subprocess.Popen(command, stdout=ssh)


def test_who_dials_hands_over_a_connection_once_there_is_a_server(silent: socket.socket) -> None:
    ours, theirs = socket.socketpair()
    with ours, _dialled(silent.getsockname()[1], theirs, os.getpid()) as process:
        theirs.close()
        time.sleep(0.2)
        assert process.poll() is None
        silent.listen()
        ours.settimeout(20)
        _, [descriptor], _, _ = socket.recv_fds(ours, 1, 1)
        assert process.wait(20) == 0
        silent.settimeout(20)
        guest, _ = silent.accept()
        with guest, socket.socket(fileno=descriptor) as connection:
            assert os.get_blocking(descriptor)
            guest.sendall(b"SSH-2.0\r\n")
            assert connection.recv(100) == b"SSH-2.0\r\n"


def test_who_dials_ends_with_those_for_whom_it_does(silent: socket.socket) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait(20)
    port = silent.getsockname()[1]
    for owner, seconds, hang_up in ((os.getpid(), 60, True), (gone.pid, 60, False), (os.getpid(), 0.1, False)):
        ours, theirs = socket.socketpair()
        with ours, theirs, _dialled(port, theirs, owner, seconds) as process:
            theirs.close()
            if hang_up:
                ours.close()
            assert process.wait(20) == 1


def _shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ssh: str) -> Shell:
    """A way into a guest by a program that stands for ssh."""
    program = tmp_path / "programs/ssh"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/number\n{ssh}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return Shell(HERE, tmp_path / "key", tmp_path / "known_hosts", tmp_path / "control")


def test_a_login_that_cannot_be_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = _shell(tmp_path, monkeypatch, "echo Permission denied >&2; exit 255")
    with pytest.raises(ConnectionLost, match="Permission denied"):
        shell.open(time.monotonic() + 20, lambda: True)


@pytest.mark.parametrize(("alive", "seconds", "error"), [(False, 60.0, ConnectionLost), (True, 0.5, TimedOut)])
def test_nobody_waits_longer_than_is_worth_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: bool, seconds: float, error: type[Exception]
) -> None:
    shell = _shell(tmp_path, monkeypatch, "exec sleep 60")
    with pytest.raises(error):
        shell.open(time.monotonic() + seconds, lambda: alive)
    assert started(int((tmp_path / "number").read_text())) is None

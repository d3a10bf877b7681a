"""Commands in a real container guest: what goes in arrives, what comes out is exact, every wait ends."""

from __future__ import annotations

import pytest

from cleanroom_base.errors import InputError
from cleanroom_base.run import CommandTimedOut, OutputLimitExceeded
from cleanroom_workers.guest import CommandFailed, Guest


@pytest.mark.parametrize("status", [0, 1, 7, 126, 254, 255])
def test_exit_status_is_exact(guest: Guest, status: int) -> None:
    assert guest.run(["sh", "-c", f"exit {status}"], timeout=10).exit_status == status


def test_words_arrive_as_they_are(guest: Guest) -> None:
    words = ["$(id)", "a b", "'", '"', "`id`", "; id", "--", "*", "line\nbreak", "", "ä", "\\"]
    completed = guest.run(["printf", "[%s]", *words], timeout=10)
    assert completed.text == "".join(f"[{word}]" for word in words)


def test_environment_directory_and_user(guest: Guest) -> None:
    guest.succeed(["useradd", "--create-home", "builder"], timeout=20)
    completed = guest.run(
        ["sh", "-c", 'printf "%s|" "$VALUE" "$(pwd)" "$(id -un)" "$(id -Gn)" "$HOME" "${SSH_CLIENT:-none}"'],
        timeout=10,
        environment={"VALUE": "$(id) '; id"},
        directory="/var/tmp",
        user="builder",
    )
    assert completed.text == "$(id) '; id|/var/tmp|builder|builder|/home/builder|none|"


def test_what_cannot_be_given_to_a_program_is_refused(guest: Guest) -> None:
    with pytest.raises(InputError):
        guest.run(["true"], timeout=10, user="root; id")
    with pytest.raises(InputError):
        guest.run(["true"], timeout=10, environment={"A;id": "1"})
    with pytest.raises(InputError):
        guest.run(["printf", "a\0b"], timeout=10)


def test_standard_input_and_streamed_output(guest: Guest) -> None:
    pieces: list[bytes] = []
    content = bytes(range(256)) * 4096
    guest.run(["cat"], timeout=20, stdin=content, output=pieces.append)
    assert b"".join(pieces) == content


def test_a_command_that_hangs_is_ended(guest: Guest) -> None:
    with pytest.raises(CommandTimedOut):
        guest.run(["sleep", "100"], timeout=0.5)
    guest.succeed(["true"], timeout=10)


def test_a_command_that_prints_without_end_is_ended(guest: Guest) -> None:
    with pytest.raises(OutputLimitExceeded):
        guest.run(["yes"], timeout=30, output_limit=100_000)
    guest.succeed(["true"], timeout=10)


def test_succeed_and_fail_say_what_happened(guest: Guest) -> None:
    with pytest.raises(CommandFailed, match="no such thing"):
        guest.succeed(["sh", "-c", "echo no such thing >&2; exit 3"], timeout=10)
    guest.fail(["false"], timeout=10)
    with pytest.raises(CommandFailed):
        guest.fail(["true"], timeout=10)


def test_waits(guest: Guest) -> None:
    script = "sleep 0.3; touch /tmp/there"
    guest.succeed(["sh", "-c", f"({script}) > /dev/null 2>&1 &"], timeout=10)
    guest.wait_until_succeeds(["test", "-e", "/tmp/there"], timeout=20)
    guest.wait_for_port(22, timeout=10)


def test_packages_come_through_the_proxy(guest: Guest) -> None:
    guest.succeed(["apt-get", "update"], timeout=120)
    guest.succeed(["apt-get", "install", "--yes", "hello"], timeout=120)
    assert guest.succeed(["hello"], timeout=10).text == "Hello, world!\n"

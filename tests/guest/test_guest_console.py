"""The console of a guest: what was printed on it, for files harmless, and a person's terminal at it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sysconfig
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from surroundings import IMAGE, variables

from cleanroom_base.settings import Settings
from cleanroom_workers.guest import Guest
from cleanroom_workers.host import Host
from cleanroom_workers.plan import Limits
from cleanroom_workers.records import Owner

# As in the other tests of emulated guests, so that they share one snapshot.
LIMITS = Limits(processors=2, memory=1024, disk=3072, processes=1000)
_WAIT = 60.0


@pytest.fixture(scope="module", params=["container", "emulated"])
def guest(host: Host, request: pytest.FixtureRequest) -> Iterator[Guest]:
    with host.reset(IMAGE, isolation=request.param, owner=Owner.current(), limits=LIMITS) as guest:
        yield guest


@pytest.fixture
def given(environment: dict[str, str]) -> dict[str, str]:
    return {**variables(), **environment}


def _command(guest: Guest, *options: str) -> list[str | Path]:
    return [Path(sysconfig.get_path("scripts")) / "cleanroom", "guest", "console", guest.name, *options]


def _print(guest: Guest, text: str) -> None:
    device = "/dev/console" if guest.isolation == "container" else "/dev/ttyS0"
    guest.succeed(["sh", "-c", f'printf "$0" > {device}', text], timeout=20)


def _await(descriptor: int, expected: bytes) -> bytes:
    heard, deadline = b"", time.monotonic() + _WAIT
    while expected not in heard:
        assert time.monotonic() < deadline, heard
        if select.select([descriptor], [], [], 0.1)[0]:
            heard += os.read(descriptor, 4096)
    return heard


def test_what_was_printed_is_shown_as_often_as_one_looks_and_harmless(guest: Guest, given: dict[str, str]) -> None:
    _print(guest, r"first\n\033[2Jhidden\n")
    for _ in range(2):
        shown = subprocess.run(_command(guest), env=given, capture_output=True, text=True, check=True).stdout
        assert "first\n" in shown
        assert "\\x1b[2Jhidden\n" in shown
        assert "\x1b" not in shown
        assert guest.isolation == "emulated" or "[  OK  ] Reached target multi-user.target" in shown
    with subprocess.Popen(_command(guest, "--follow"), env=given, stdout=subprocess.PIPE) as following:
        assert following.stdout is not None
        _await(following.stdout.fileno(), b"hidden\n")
        _print(guest, r"second\n")
        _await(following.stdout.fileno(), b"second\n")
        following.terminate()


def test_a_person_sits_down_at_it_and_leaves(host: Host, guest: Guest, given: dict[str, str]) -> None:
    here, there = pty.openpty()
    before = termios.tcgetattr(there)
    with subprocess.Popen(_command(guest), env=given, stdin=there, stdout=there, stderr=there) as person:
        _await(here, b"leave with Ctrl-]")
        _print(guest, r"\033[1mraw")
        _await(here, b"\x1b[1mraw")
        second = subprocess.run(
            _command(guest), env=given, stdin=there, stdout=there, stderr=subprocess.PIPE, check=False
        )
        assert second.returncode == 2
        assert b"somebody else" in second.stderr
        # What is typed is read by whoever reads there, an interrupt too.
        device = "/dev/console" if guest.isolation == "container" else "/dev/ttyS0"
        reader = f"stty raw < {device}; head -c 3 < {device} > /tmp/typed; touch /tmp/read"
        guest.succeed(["sh", "-c", f"setsid sh -c '{reader}' > /dev/null 2>&1 &"], timeout=20)
        guest.wait_until_succeeds(["pgrep", "-x", "head"], timeout=_WAIT)
        os.write(here, b"a\x03b")
        guest.wait_until_succeeds(["test", "-e", "/tmp/read"], timeout=_WAIT)
        assert guest.succeed(["cat", "/tmp/typed"], timeout=20).stdout == b"a\x03b"
        os.write(here, b"\x1d")
        assert person.wait(_WAIT) == 0
    assert termios.tcgetattr(there) == before
    os.close(there)
    os.close(here)
    # What was printed meanwhile is kept.
    assert b"raw" in b"".join(host.console(guest.name).printed(follow=False))


def test_a_guest_that_prints_without_end_does_not_fill_the_disk(host: Host, settings: Settings, guest: Guest) -> None:
    log = settings.state / "guests" / guest.name / "console.log"
    with log.open("ab") as more:
        more.write(b"x" * (16 << 20))
    _print(guest, r"too much\n")
    assert b"x" in next(host.console(guest.name).printed(follow=False))
    host.reap()
    assert log.stat().st_size == 0
    _print(guest, r"goes on\n")
    assert b"".join(host.console(guest.name).printed(follow=False)).strip() == b"goes on"
    assert log.stat().st_blocks < 100
